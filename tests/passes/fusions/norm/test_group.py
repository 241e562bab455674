"""Group normalisation as exporters write it, and weights per channel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, alone, check_kept, surround, times_each_fires

from leptonc.passes.fusions.norm.fuse import FUSE_NORMALIZATION
from leptonc.passes.pipeline import Context
from leptonc.passes.rewriting.rewriter import apply_rules

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
WEIGHTS = """int64[3] groups = {0, 2, -1}, float[2] one = {1, 1}, float[2] zero = {0, 0},
    float[4,1,1] k = {1, 2, 3, 4}, float[4,1,1] b = {5, 6, 7, 8}, int64[4] whole = {0, 4, 2, 3}"""
BODY = """parts = Reshape(x, groups)
    n = InstanceNormalization<epsilon: float = 0.01>(parts, one, zero)
    back = Reshape(n, whole)
    s = Mul(back, k)
    y = Add(s, b)"""


def graph(body=BODY, weights=WEIGHTS, *, x="float[2,4,2,3]", more=""):
    return f"{HEAD} g ({x} x) => ({x} y{more}) <{weights}> {{ {body} }}"


def reasons(stats, rule):
    return [refusal.reason for refusal in stats.refused if refusal.rule == rule]


def test_group_normalisation(parse, assert_graph):
    model = parse(graph())
    stats = FUSE_NORMALIZATION.run(model)
    assert stats.counts == (("channel-norm-affine", 2), ("group-norm", 1))
    attributes = model.graph.node(0).attributes
    assert attributes.get_int("num_groups") == 2
    assert attributes.get_float("epsilon") == pytest.approx(0.01)
    weights = {name: w.const_value.numpy() for name, w in model.graph.initializers.items()}
    _, scale, bias = (value.name for value in model.graph.node(0).inputs)
    np.testing.assert_array_equal(weights[scale], [1, 2, 3, 4])
    np.testing.assert_array_equal(weights[bias], [5, 6, 7, 8])


def test_sizes_that_are_known_by_name_only(parse):
    body = "whole = Shape(x)" + BODY
    weights = WEIGHTS.replace(", int64[4] whole = {0, 4, 2, 3}", "")
    model = parse(graph(body, weights, x="float[N,4,H,W]"))
    FUSE_NORMALIZATION.run(model)
    assert [node.op_type for node in model.graph] == ["GroupNormalization"]


def test_a_cpu_without_a_kernel_keeps_the_form(parse, assert_graph):
    for target in ("ort-cpu", "ort-cuda", "primitive"):
        model = parse(graph())
        assert not FUSE_NORMALIZATION.run(model, Context(target)).changed
        assert_graph(model, graph())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (graph(more=", float[2,2,12] n"), "'n' is an output of the graph"),
        (
            graph(weights=WEIGHTS.replace("one = {1, 1}", "one = {1, 2}")),
            "the scale or the bias within the groups is not neutral",
        ),
        (
            graph(weights=WEIGHTS.replace("zero = {0, 0}", "zero = {0, 2}")),
            "the scale or the bias within the groups is not neutral",
        ),
        (
            graph(
                BODY.replace("s = Mul(back, k)", "").replace("Add(s, b)", "Relu(back)"),
                WEIGHTS.replace("whole = {0, 4, 2, 3}", "whole = {0, 4, 3, 2}"),
            ).replace("float[2,4,2,3] y", "float[2,4,3,2] y"),
            "the shape is not known to be that of the input again",
        ),
        (
            graph(
                weights=WEIGHTS.replace("groups = {0, 2, -1}", "groups = {4, 2, -1}").replace(
                    "{0, 4, 2, 3}", "{2, 4, 2, 3}"
                )
            ),
            "the groups are not known to stay within a sample",
        ),
        (
            graph(
                x="float[2,4,2,3]",
                weights=WEIGHTS.replace("{0, 2, -1}", "{0, 8, -1}")
                .replace("float[2] one = {1, 1}", "float[8] one = {1,1,1,1,1,1,1,1}")
                .replace("float[2] zero = {0, 0}", "float[8] zero = {0,0,0,0,0,0,0,0}"),
            ),
            "the channels are not known to divide into the groups",
        ),
        (
            graph(
                "whole = Shape(x)"
                + BODY.replace("s = Mul(back, k)", "").replace("Add(s, b)", "Neg(back)"),
                "int64[3] groups = {0, 2, -1}, float[2] one = {1, 1}, float[2] zero = {0, 0}",
                x="float[2,C,2,3]",
            ),
            "the channels are not known to divide into the groups",
        ),
        (
            graph(
                BODY.replace("s = Mul(back, k)", "").replace("Add(s, b)", "Neg(back)"),
                "int64[3] groups = {0, 2, -1}, int64[4] whole = {0, 4, 2, 3},"
                " double[2] one = {1, 1}, double[2] zero = {0, 0}",
                x="double[2,4,2,3]",
            ),
            "the element type is not float32 or float16",
        ),
        (
            graph(weights=WEIGHTS.replace("float[2] one = {1, 1},", "")).replace(
                "float[2,4,2,3] x)", "float[2,4,2,3] x, float[2] one)"
            ),
            "the scale or the bias within the groups is not neutral",
        ),
    ],
)
def test_what_is_no_group_normalisation(parse, text, reason):
    stats = FUSE_NORMALIZATION.run(parse(text))
    assert reasons(stats, "group-norm") == [reason]
    assert "group-norm" not in dict(stats.counts)


INSTANCE = "n = InstanceNormalization(x, s, c)  y = Mul(n, k)"
INSTANCE_WEIGHTS = (
    "float[4] s = {1, 2, 3, 4}, float[4] c = {1, 1, 1, 1}, float[4,1,1] k = {2,3,4,5}"
)


# The bits of 1, 2, 3 and 4.
HALF_WEIGHTS = (
    "float16[4] s = {15360, 16384, 16896, 17408}, float16[4] c = {15360, 15360, 15360, 15360},"
    " float16[4,1,1] k = {15360, 16384, 16896, 17408}"
)


@pytest.mark.parametrize(
    ("operator", "scale", "bias"), [("Mul", 15360, 0), ("Add", 15360, 0), ("Add", 16384, 0)]
)
def test_half_precision_that_is_rounded_once(parse, operator, scale, bias):
    """A factor where nothing is scaled yet, and a sum where nothing is added yet."""
    weights = HALF_WEIGHTS.replace(
        "s = {15360, 16384, 16896, 17408}", f"s = {{{', '.join([str(scale)] * 4)}}}"
    ).replace("c = {15360, 15360, 15360, 15360}", f"c = {{{', '.join([str(bias)] * 4)}}}")
    model = parse(graph(INSTANCE.replace("Mul", operator), weights, x="float16[2,4,2,3]"))
    assert FUSE_NORMALIZATION.run(model).counts == (("channel-norm-affine", 1),)
    scales, biases = (
        model.graph.initializers[value.name].const_value.numpy()
        for value in model.graph.node(0).inputs[1:]
    )
    factor = 1 if scale == 15360 else 2
    expected = ([1, 2, 3, 4], [0] * 4) if operator == "Mul" else ([factor] * 4, [1, 2, 3, 4])
    np.testing.assert_array_equal(scales, expected[0])
    np.testing.assert_array_equal(biases, expected[1])


def test_one_number_for_all_channels(parse, assert_graph):
    model = parse(graph(INSTANCE, INSTANCE_WEIGHTS.replace("[4,1,1] k = {2,3,4,5}", " k = {2}")))
    assert FUSE_NORMALIZATION.run(model).counts == (("channel-norm-affine", 1),)
    assert_graph(
        model,
        graph(
            "y = InstanceNormalization(x, norm_weight, norm_weight_1)",
            "float[4] norm_weight = {2, 4, 6, 8}, float[4] norm_weight_1 = {2, 2, 2, 2}",
        ),
    )


def test_a_scale_per_channel(parse, assert_graph):
    model = parse(graph(INSTANCE, INSTANCE_WEIGHTS))
    assert FUSE_NORMALIZATION.run(model).counts == (("channel-norm-affine", 1),)
    assert_graph(
        model,
        graph(
            "y = InstanceNormalization(x, norm_weight, norm_weight_1)",
            "float[4] norm_weight = {2, 6, 12, 20}, float[4] norm_weight_1 = {2, 3, 4, 5}",
        ),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            graph(INSTANCE, INSTANCE_WEIGHTS, more=", float[2,4,2,3] n"),
            "'n' is an output of the graph",
        ),
        (
            graph(INSTANCE, INSTANCE_WEIGHTS.replace("float[4] s = {1, 2, 3, 4}, ", "")).replace(
                "float[2,4,2,3] x)", "float[2,4,2,3] x, float[4] s)"
            ),
            "the scale or the bias is no constant",
        ),
        (
            graph(INSTANCE, HALF_WEIGHTS, x="float16[2,4,2,3]"),
            "two weights in half precision would be rounded once more",
        ),
        (
            graph(INSTANCE.replace("Mul", "Add"), HALF_WEIGHTS, x="float16[2,4,2,3]"),
            "two weights in half precision would be rounded once more",
        ),
        (
            # Before opset 21 a GroupNormalization has one scale per group.
            graph(
                "n = GroupNormalization<num_groups: int = 2>(x, s, c)  y = Mul(n, k)",
                "float[2] s = {1, 2}, float[2] c = {1, 1}, float[4,1,1] k = {2, 3, 4, 5}",
            ).replace('"" : 21', '"" : 20'),
            "the scale or the bias is not one number per channel",
        ),
    ],
)
def test_a_scale_per_channel_that_may_not_be_taken_in(parse, text, reason):
    stats = FUSE_NORMALIZATION.run(parse(text))
    assert reasons(stats, "channel-norm-affine") == [reason]


@pytest.mark.parametrize("shape", ["float[4]", "float[1,1,4]", "float[2,4,1,1]"])
def test_other_shapes_are_left_alone(parse, shape):
    numbers = "2,3,4,5" if "2,4" not in shape else "1,2,3,4,5,6,7,8"
    weights = INSTANCE_WEIGHTS.replace("float[4,1,1] k = {2,3,4,5}", f"{shape} k = {{{numbers}}}")
    text = graph(INSTANCE, weights, x="float[2,4,2,4]")
    assert not FUSE_NORMALIZATION.run(parse(text)).changed


@pytest.mark.parametrize(
    "text",
    [
        graph(INSTANCE.replace("Mul(n, k)", "Mul(n, x)"), INSTANCE_WEIGHTS),
        graph(
            "n = InstanceNormalization(x, s, c)  y = Reshape(n, whole)",
            "float[4] s = {1, 1, 1, 1}, float[4] c = {0, 0, 0, 0}, int64[4] whole = {0, 4, 2, 3}",
        ),
        graph("n = Neg(x)  y = Reshape(n, whole)", "int64[4] whole = {0, 4, 2, 3}"),
    ],
)
def test_other_forms_are_left_alone(parse, text):
    stats = FUSE_NORMALIZATION.run(parse(text))
    assert not stats.changed
    assert not stats.refused


def draw_group(draw):
    pattern = Pattern()
    per_group, groups, samples = (draw(st.integers(1, 3)) for _ in range(3))
    rank = draw(st.integers(3, 4))
    rest = tuple(draw(st.integers(2, 3)) for _ in range(rank - 2))
    channels = per_group * groups
    shape = (samples, channels, *rest)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    x = pattern.input(random.normal(size=shape).astype(np.float32))
    target = draw(st.sampled_from([(0, groups, -1), (samples, groups, -1)]))
    parts = pattern.add("Reshape", x, pattern.weight(np.array(target, np.int64)))
    ones, zeros = (pattern.weight(np.full(groups, n, np.float32)) for n in (1, 0))
    norm = pattern.add("InstanceNormalization", parts, ones, zeros)
    whole = (
        pattern.add("Shape", x)
        if draw(st.booleans())
        else pattern.weight(np.array(shape, np.int64))
    )
    out = pattern.add("Reshape", norm, whole)
    for operator in draw(st.sampled_from([[], ["Mul"], ["Add"], ["Mul", "Add"]])):
        dims = draw(st.sampled_from([(channels, *(1,) * (rank - 2)), (1,), shape]))
        weight = pattern.weight(random.normal(size=dims).astype(np.float32))
        out = pattern.add(operator, *draw(st.permutations([out, weight])))
    return pattern


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_outputs_stay_in_any_surrounding(data):
    def rewrite(model):
        apply_rules(model, "norm", FUSE_NORMALIZATION.rules)
        assert not apply_rules(model, "norm", FUSE_NORMALIZATION.rules).changed

    # Spelled out by ONNX, the variance is a difference of two means, and less exact.
    check_kept(surround(data.draw, draw_group(data.draw), opset=21), rewrite, relative=2e-4)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_it_fires_where_nothing_is_in_the_way(data):
    model = alone(draw_group(data.draw), opset=21)
    assert dict(apply_rules(model, "norm", FUSE_NORMALIZATION.rules).counts)["group-norm"] == 1


def test_each_rule_fires_on_what_is_drawn():
    fired = times_each_fires(draw_group, FUSE_NORMALIZATION.rules, opset=21)
    assert fired["group-norm"] >= 5
    assert fired["channel-norm-affine"] >= 5
