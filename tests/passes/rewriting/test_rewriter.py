"""What holds for every rule: where it may fire, what its rewrite leaves, and what is reported."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from leptonc.passes.base import Firing, Refusal
from leptonc.passes.errors import PassError
from leptonc.passes.pipeline import PASS_KEY, run_passes
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rewriter import apply_rules, restore_order
from leptonc.passes.rewriting.rule import Rule
from leptonc.passes.rewriting.rule_pass import RulePass
from leptonc.passes.rewriting.site import Site
from leptonc.passes.targets import ORT_CPU


def _two_relus(site: Site) -> ir.Node | None:
    return site.producer(site.input(0), "Relu")


def _inner_is_read_once(site: Site, inner: ir.Node) -> str | None:
    return site.read_elsewhere(inner.outputs[0], (site.node,))


def _one_relu(site: Site, inner: ir.Node, build: Build) -> dict[ir.Value, ir.Value]:
    return {site.node.outputs[0]: build.op("Relu", [inner.inputs[0]], like=inner.outputs[0])}


TWICE = Rule("relu-relu", ("Relu",), _two_relus, _inner_is_read_once, _one_relu)


def test_a_rule_fires_until_nothing_matches_and_keeps_the_names(parse, assert_graph):
    model = parse("g (float[2] x) => (float[2] y) { a = Relu(x)  b = Relu(a)  y = Relu(b) }")
    stats = apply_rules(model, "test", (TWICE,))
    assert_graph(model, "g (float[2] x) => (float[2] y) { y = Relu(x) }")
    assert stats.counts == (("relu-relu", 2),)
    assert len(stats.fired) == 2
    assert (stats.nodes_before, stats.nodes_after) == (3, 1)
    assert not apply_rules(model, "test", (TWICE,)).changed


def test_an_inner_value_goes_under_the_name_that_it_had(parse, assert_graph):
    model = parse("g (float[2] x) => (float[2] y) { a = Relu(x)  b = Relu(a)  y = Neg(b) }")
    apply_rules(model, "test", (TWICE,))
    assert_graph(model, "g (float[2] x) => (float[2] y) { b = Relu(x)  y = Neg(b) }")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "g (float[2] x) => (float[2] y, float[2] a) { a = Relu(x)  y = Relu(a) }",
            "'a' is an output of the graph",
        ),
        (
            "g (float[2] x) => (float[2] y, float[2] z)"
            " { a = Relu(x)  [last] y = Relu(a)  [other] z = Neg(a) }",
            "'a' is also read by 'other' (Neg)",
        ),
    ],
)
def test_a_near_miss_is_reported_with_the_failing_check(parse, assert_graph, text, reason):
    model = parse(text)
    stats = apply_rules(model, "test", (TWICE,))
    assert not stats.changed
    assert [refusal.reason for refusal in stats.refused] == [reason]
    assert [refusal.rule for refusal in stats.refused] == ["relu-relu"]
    assert_graph(model, text.replace("[last] ", "").replace("[other] ", ""))


def test_a_rule_for_another_target_does_not_fire(parse):
    rule = Rule(
        "only-ort",
        ("Relu",),
        _two_relus,
        _inner_is_read_once,
        _one_relu,
        targets=frozenset({ORT_CPU}),
    )
    text = "g (float[2] x) => (float[2] y) { a = Relu(x)  y = Relu(a) }"
    assert not apply_rules(parse(text), "test", (rule,)).changed
    assert apply_rules(parse(text), "test", (rule,), target=ORT_CPU).changed


def test_a_pattern_does_not_reach_out_of_its_graph(parse):
    model = parse(
        """g (float[2] x, bool c) => (float[2] y) {
            a = Relu(x)
            y = If (c) <then_branch = t () => (float[2] u) { u = Relu(a) },
                        else_branch = e () => (float[2] v) { v = Neg(a) }>
        }"""
    )
    assert not apply_rules(model, "test", (TWICE,)).changed


def test_a_pattern_inside_a_branch_is_rewritten_there(parse, assert_graph):
    model = parse(
        """g (float[2] x, bool c) => (float[2] y) {
            y = If (c) <then_branch = t () => (float[2] u) { b = Relu(x)  u = Relu(b) },
                        else_branch = e () => (float[2] v) { v = Neg(x) }>
        }"""
    )
    apply_rules(model, "test", (TWICE,))
    assert_graph(
        model,
        """g (float[2] x, bool c) => (float[2] y) {
            y = If (c) <then_branch = t () => (float[2] u) { u = Relu(x) },
                        else_branch = e () => (float[2] v) { v = Neg(x) }>
        }""",
    )


def _passes_through(site: Site, match: ir.Value, build: Build) -> dict[ir.Value, ir.Value]:
    del build
    return {site.node.outputs[0]: match}


THROUGH = Rule(
    "drop-floor", ("Floor",), lambda site: site.input(0), lambda _, __: None, _passes_through
)


def test_an_output_that_becomes_an_input_is_copied(parse, assert_graph):
    model = parse("g (float[2] x) => (float[2] y) { y = Floor(x) }")
    apply_rules(model, "test", (THROUGH,))
    assert_graph(model, "g (float[2] x) => (float[2] y) { y = Identity(x) }")


def _weight(site: Site, match: ir.Value, build: Build) -> dict[ir.Value, ir.Value]:
    assert match is not None
    source = ir.Tensor(np.array([1.0, 2.0], np.float32))
    lazy = build.weight(
        [source], lambda array: array * 2, dtype=ir.DataType.FLOAT, shape=[2], stem="w"
    )
    added = build.op("Add", [match, lazy])
    unused = build.constant(np.array([9.0], np.float32))
    assert unused.name
    return {site.node.outputs[0]: build.op("Mul", [added, build.constant(np.float32(3), "w")])}


WEIGHT = Rule("floor-to-sum", ("Floor",), lambda site: site.input(0), lambda _, __: None, _weight)


def test_weights_get_fresh_names_and_unused_ones_stay_out(parse, assert_graph):
    model = parse(
        "g (float[2] x) => (float[2] y) <float[2] w = {5, 6}> { a = Add(x, w)  y = Floor(a) }"
    )
    apply_rules(model, "test", (WEIGHT,))
    assert_graph(
        model,
        """g (float[2] x) => (float[2] y)
        <float[2] w = {5, 6}, float[2] w_1 = {2, 4}, float w_2 = {3}> {
            a = Add(x, w)  y_floor_to_sum = Add(a, w_1)  y = Mul(y_floor_to_sum, w_2)
        }""",
    )


def _swap(site: Site, first: ir.Node, build: Build) -> dict[ir.Value, ir.Value]:
    made = build.ops(
        "Split",
        [site.input(0)],
        {"axis": 0, "num_outputs": 2},
        outputs=(first.outputs[0], site.node.outputs[0]),
    )
    return {first.outputs[0]: made[0], site.node.outputs[0]: made[1]}


def _sibling(site: Site) -> ir.Node | None:
    value = site.input(0)
    assert value is not None
    others = [use.node for use in value.uses() if use.node.op_type == "Sin"]
    return others[0] if others else None


SIBLINGS = Rule("siblings", ("Cos",), _sibling, lambda _, __: None, _swap)


def test_several_outputs_may_be_read_before_the_anchor(parse):
    """`z` reads the first output before the anchor, so the nodes have to be sorted."""
    model = parse(
        "g (float[2] x) => (float[1] z, float[1] w) "
        "{ a = Sin(x)  z = Neg(a)  b = Cos(x)  w = Neg(b) }"
    )
    stats = apply_rules(model, "test", (SIBLINGS,))
    assert stats.counts == (("siblings", 1),)
    onnx.checker.check_model(ir.to_proto(model))
    assert [node.op_type for node in model.graph] == ["Split", "Neg", "Neg"]


def test_a_rewrite_that_would_need_its_own_result_is_refused(parse):
    rule = Rule(
        "loop",
        ("Cos",),
        lambda site: site.input(0).producer(),
        lambda _, __: None,
        lambda site, first, build: dict(
            zip(
                (first.outputs[0], site.node.outputs[0]),
                build.ops("Split", [site.input(0)], {"axis": 0}, outputs=(first.outputs[0], None)),
                strict=True,
            )
        ),
    )
    model = parse("g (float[2] x) => (float[2] y) { a = Sin(x)  y = Cos(a) }")
    stats = apply_rules(model, "test", (rule,))
    assert not stats.changed
    reason = "one of the values that it replaces is needed to compute its inputs"
    assert [refusal.reason for refusal in stats.refused] == [reason]


RAISING = Rule("needs-23", ("Relu",), _two_relus, _inner_is_read_once, _one_relu, opset=23)


def test_the_opset_is_raised_where_nothing_changes_its_meaning(parse):
    model = parse("g (float[2] x) => (float[2] y) { a = Relu(x)  y = Relu(a) }")
    assert apply_rules(model, "test", (RAISING,)).changed
    assert model.opset_imports[""] == 23


def test_the_opset_stays_where_an_operator_changed(parse):
    model = parse(
        """<ir_version: 10, opset_import: ["" : 18]>
        g (float[1,1,4,4] x, float[4] r) => (float[1,1,4,4] y) {
            b = Resize(x, r, r)  a = Relu(b)  [last] y = Relu(a)
        }"""
    )
    stats = apply_rules(model, "test", (RAISING,))
    assert not stats.changed
    assert model.opset_imports[""] == 18
    assert stats.refused == (
        Refusal("last", "opset 18 is not raised to 23: Resize ('') changed in between", "needs-23"),
    )


def test_a_rule_that_never_ends_is_named(parse):
    rule = Rule(
        "again",
        ("Neg",),
        lambda site: site.input(0),
        lambda _, __: None,
        lambda site, match, build: {site.node.outputs[0]: build.op("Neg", [match])},
    )
    with pytest.raises(PassError, match="does not come to an end") as caught:
        apply_rules(parse("g (float[2] x) => (float[2] y) { y = Neg(x) }"), "test", (rule,))
    assert "'again'" in str(caught.value)


def test_old_models_and_functions_are_left_alone(parse):
    old = parse(
        """<ir_version: 3, opset_import: ["" : 13]>
        g (float[2] x) => (float[2] y) { a = Relu(x)  y = Relu(a) }"""
    )
    assert not apply_rules(old, "test", (TWICE,)).changed
    function = parse(
        """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 20]>
        f (p) => (q) { b = Relu(p)  q = Relu(b) }"""
    )
    assert not apply_rules(function, "test", (TWICE,)).changed


def test_what_a_rule_made_is_stamped_with_its_pass(parse):
    model = parse("g (float[2] x) => (float[2] y) { a = Relu(x)  b = Relu(a)  y = Neg(b) }")
    (stats,) = run_passes(model, (RulePass("twice", None, (TWICE,)),))
    assert stats.fired == (Firing("relu-relu", ""),)
    stamps = {node.op_type: node.metadata_props.get(PASS_KEY) for node in model.graph}
    assert stamps["Relu"] == "twice"


def test_nodes_out_of_order_are_sorted(parse, assert_graph):
    text = "g (float[2] x) => (float[2] y) { a = Sin(x)  b = Cos(a)  y = Neg(b) }"
    model = parse(text)
    first = model.graph[0]
    model.graph.remove(first)
    model.graph.append(first)
    restore_order(model.graph)
    assert_graph(model, text)
