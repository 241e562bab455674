"""A residual sum and its normalisation become one node."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, alone, check_kept, surround

from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.fusions.residual.fuse import FUSE_RESIDUAL
from leptonc.passes.fusions.residual.skip_norm import RULES
from leptonc.passes.pipeline import Context
from leptonc.passes.rewriting.rewriter import apply_rules

HEAD = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>\n'
WEIGHTS = "float[3] s = {1, 2, 3}, float[3] b = {4, 5, 6}, float[3] c = {7, 8, 9}"
LAYER = "z = Add(x, r)  y = LayerNormalization<epsilon: float = 0.01>(z, s, b)"


def graph(body=LAYER, *, x="float[N,S,3]", r=None, more="", weights=WEIGHTS):
    return f"{HEAD} g ({x} x, {r or x} r) => ({x} y{more}) <{weights}> {{ {body} }}"


def fuse(model, target="ort-cuda"):
    return FUSE_RESIDUAL.run(model, Context(target))


def used(*names):
    return ", ".join(
        f"float[3] {n} = {v}" for n, v in zip("sbc", VALUES, strict=True) if n in names
    )


VALUES = ("{1, 2, 3}", "{4, 5, 6}", "{7, 8, 9}")


@pytest.mark.parametrize(
    ("body", "expected", "names"),
    [
        (
            LAYER,
            "y = com.microsoft.SkipLayerNormalization<epsilon: float = 0.01>(x, r, s, b)",
            "sb",
        ),
        (
            "z = Add(x, r)  y = LayerNormalization(z, s)",
            "y = com.microsoft.SkipLayerNormalization<epsilon: float = 0.00001>(x, r, s)",
            "s",
        ),
        (
            "d = Add(c, x)  z = Add(r, d)  y = LayerNormalization<epsilon: float = 0.01>(z, s, b)",
            "y = com.microsoft.SkipLayerNormalization<epsilon: float = 0.01>(x, r, s, b, c)",
            "sbc",
        ),
        (
            "d = Add(c, x)  z = Add(r, d)  y = LayerNormalization<epsilon: float = 0.01>(z, s)",
            "y = com.microsoft.SkipLayerNormalization<epsilon: float = 0.01>(x, r, s, , c)",
            "sc",
        ),
        (
            "z = Add(x, r)  y = RMSNormalization<epsilon: float = 0.01>(z, s)",
            "y = com.microsoft.SkipSimplifiedLayerNormalization<epsilon: float = 0.01>(x, r, s)",
            "s",
        ),
        (
            "d = Add(x, c)  z = Add(d, r)  y = RMSNormalization<epsilon: float = 0.01>(z, s)",
            "y = com.microsoft.SkipSimplifiedLayerNormalization<epsilon: float = 0.01>(x, r, s, c)",
            "sc",
        ),
    ],
)
def test_each_form(parse, assert_graph, body, expected, names):
    model = parse(graph(body))
    assert fuse(model).counts == (("skip-norm", 1),)
    assert_graph(model, graph(expected, weights=used(*names)))


def test_the_sum_that_is_the_next_residual_is_an_output(parse):
    model = parse(graph(LAYER + " n = Neg(z)", more=", float[N,S,3] n"))
    assert fuse(model).counts == (("skip-norm", 1),)
    onnx.checker.check_model(ir.to_proto(model))
    skip, negation = model.graph
    assert [output.name for output in skip.outputs] == ["y", "", "", "z"]
    assert negation.inputs[0] is skip.outputs[3]


def test_a_sum_that_is_an_output_of_the_graph(parse):
    model = parse(graph(more=", float[N,S,3] z"))
    assert fuse(model).counts == (("skip-norm", 1),)
    onnx.checker.check_model(ir.to_proto(model))
    (skip,) = model.graph
    assert [output.name for output in skip.outputs] == ["y", "", "", "z"]
    assert skip.outputs[3].is_graph_output()


@pytest.mark.parametrize("more", [", float[N,S,3] d", ", float[N,S,3] n"])
def test_a_biased_input_that_is_read_elsewhere_stays_as_it_is(parse, more):
    body = "d = Add(c, x)  z = Add(r, d)  y = LayerNormalization<epsilon: float = 0.01>(z, s, b)"
    model = parse(graph(body + ("  n = Neg(d)" if more.endswith("n") else ""), more=more))
    assert fuse(model).counts == (("skip-norm", 1),)
    add, skip = list(model.graph)[:2]
    assert (add.op_type, skip.op_type) == ("Add", "SkipLayerNormalization")
    assert [value.name for value in skip.inputs] == ["r", "d", "s", "b"]


def test_a_bias_of_another_size_stays_as_it_is(parse):
    body = "d = Add(c, x)  z = Add(r, d)  y = LayerNormalization<epsilon: float = 0.01>(z, s, b)"
    model = parse(
        graph(body, weights=WEIGHTS.replace("float[3] c = {7, 8, 9}", "float[1] c = {7}"))
    )
    assert fuse(model).counts == (("skip-norm", 1),)
    assert [node.op_type for node in model.graph] == ["Add", "SkipLayerNormalization"]


@pytest.mark.parametrize(
    "body", ["y = LayerNormalization(x, s)", "z = Sub(x, r)  y = RMSNormalization(z, s)"]
)
def test_other_forms_are_left_alone(parse, body):
    stats = fuse(parse(graph(body)))
    assert not stats.changed
    assert not stats.refused


@pytest.mark.parametrize("target", ["generic", "ort-cpu", "primitive"])
def test_elsewhere_it_is_slower_or_unknown(parse, assert_graph, target):
    model = parse(graph())
    assert not fuse(model, target).changed
    assert_graph(model, graph())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (graph(r="float[1,S,3]"), "'x' and 'r' are not known to be of one shape"),
        (graph(r="float[M,S,3]"), "'x' and 'r' are not known to be of one shape"),
        (graph(x="float[2,2,2,3]"), "it takes two or three dimensions, not 4"),
        (
            graph(LAYER.replace("<epsilon", "<axis: int = 1, epsilon"), x="float[N,1,3]"),
            "more than the last axis is normalised",
        ),
        (
            graph(weights="float[1,3] s = {1, 2, 3}, float[3] b = {4, 5, 6}"),
            "'s' is not one number for each element of the last axis",
        ),
        (
            graph(weights="float[3] s = {1, 2, 3}, float[1] b = {4}"),
            "'b' is not one number for each element of the last axis",
        ),
        (
            graph("z = Add(x, r) y, m = LayerNormalization(z, s)", more=", float[N,S,1] m"),
            "the statistics 'm' are read",
        ),
        (
            graph("z = Add(x, r) y = LayerNormalization<stash_type: int = 11>(z, s)"),
            "the normalisation does not compute in float32",
        ),
        (
            graph(x="double[N,S,3]", weights=WEIGHTS.replace("float[", "double[")),
            "the element types differ, or are not known",
        ),
        (
            graph("z = Add(x, r) y = RMSNormalization(z, s)", x="float16[N,S,3]"),
            "the element types differ, or are not known",
        ),
    ],
)
def test_a_precondition_that_does_not_hold(parse, text, reason):
    stats = fuse(parse(text))
    assert not stats.changed
    assert [refusal.reason for refusal in stats.refused] == [reason]


def draw_skip(draw):
    pattern, random = Pattern(), np.random.default_rng(draw(st.integers(0, 99)))
    shape = tuple(draw(st.integers(1, 3)) for _ in range(draw(st.integers(2, 3))))
    left, right = (pattern.input(random.normal(size=shape).astype(np.float32)) for _ in "ab")
    rows = [pattern.weight(random.normal(size=shape[-1:]).astype(np.float32)) for _ in "sbc"]
    if draw(st.booleans()):
        left = pattern.add("Add", *draw(st.permutations([left, rows[2]])))
    total = pattern.add("Add", *draw(st.permutations([left, right])))
    if draw(st.booleans()):
        out = pattern.add("RMSNormalization", total, rows[0])
    else:
        weights = rows[: draw(st.integers(1, 2))]
        out = pattern.add("LayerNormalization", total, *weights, epsilon=1e-3)
    if draw(st.booleans()):
        pattern.add("Sub", out, total)
    return pattern


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_outputs_stay_in_any_surrounding(data):
    def rewrite(model):
        apply_rules(model, "skip", RULES, target="ort-cuda")
        assert not apply_rules(model, "skip", RULES, target="ort-cuda").changed

    check_kept(surround(data.draw, draw_skip(data.draw), opset=23), rewrite)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_it_fires_where_nothing_is_in_the_way(data):
    model = alone(draw_skip(data.draw), opset=23)
    assert apply_rules(model, "skip", RULES, target="ort-cuda").changed == 1
    assert len(model.graph) <= 2


def test_the_shapes_behind_it_stay_known(parse):
    """ONNX's inference does not know the operator, nor which of its outputs is the sum."""
    model = parse(graph(LAYER + " n = Neg(z)", more=", float[N,S,3] n"))
    fuse(model)
    skip, negation = model.graph
    facts = infer_facts(model)
    for value in (skip.outputs[0], skip.outputs[3], negation.outputs[0]):
        assert facts.dtype(value) == ir.DataType.FLOAT
        assert facts.dims(value) == (None, None, 3)
        assert facts.symbolic(value) == facts.symbolic(model.graph.inputs[0])


def test_the_type_behind_it_is_declared():
    """An exporter may declare no inner types, and ONNX's inference asks for this one."""
    pattern = Pattern()
    inputs = [pattern.input(np.ones((2, 3), np.float32)) for _ in range(2)]
    total = pattern.add("Add", *inputs)
    norm = pattern.add("LayerNormalization", total, pattern.weight(np.ones(3, np.float32)))
    pattern.add("Neg", norm)
    model = alone(pattern)
    assert model.graph.node(1).outputs[0].type is None
    assert fuse(model).changed == 1
    assert model.graph.node(0).outputs[0].type == ir.TensorType(ir.DataType.FLOAT)
