"""Scale, bias and casts around a normalisation are taken in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, alone, check_kept, surround, times_each_fires

from leptonc.passes.fusions.norm.fuse import FUSE_NORMALIZATION
from leptonc.passes.pipeline import Context
from leptonc.passes.rewriting.rewriter import apply_rules

HEAD = '<ir_version: 10, opset_import: ["" : 23]>\n'


def graph(body, weights, *, x="float[2,3]", more="", y="float[2,3] y"):
    return f"{HEAD} g ({x} x{more}) => ({y}) <{weights}> {{ {body} }}"


ONES = "float[3] s = {1, 1, 1}"
NORM = "n = LayerNormalization<axis: int = -1>(x, s)  "


@pytest.mark.parametrize(
    ("body", "weights", "expected", "kept"),
    [
        (
            NORM + "y = Mul(k, n)",
            f"{ONES}, float[3] k = {{2, 3, 4}}",
            "y = LayerNormalization<axis: int = -1>(x, k)",
            "float[3] k = {2, 3, 4}",
        ),
        (
            NORM + "y = Mul(n, k)",
            "float[3] s = {1, 2, 3}, float[1,3] k = {2, 3, 4}",
            "y = LayerNormalization<axis: int = -1>(x, norm_weight)",
            "float[3] norm_weight = {2, 6, 12}",
        ),
        (
            NORM + "y = Mul(n, k)",
            "float[3] s = {1, 2, 3}, float k = {2}",
            "y = LayerNormalization<axis: int = -1>(x, norm_weight)",
            "float[3] norm_weight = {2, 4, 6}",
        ),
        (
            NORM + "y = Mul(k, n)",
            f"{ONES}, float k = {{2}}",
            "y = LayerNormalization<axis: int = -1>(x, norm_weight)",
            "float[3] norm_weight = {2, 2, 2}",
        ),
        (
            NORM.replace("n =", "n, mean =") + "y = Mul(k, n)",
            f"{ONES}, float[3] k = {{2, 3, 4}}",
            "y = LayerNormalization<axis: int = -1>(x, k)",
            "float[3] k = {2, 3, 4}",
        ),
        (
            NORM + "y = Add(n, b)",
            f"{ONES}, float[3] b = {{2, 3, 4}}",
            "y = LayerNormalization<axis: int = -1>(x, s, b)",
            f"{ONES}, float[3] b = {{2, 3, 4}}",
        ),
        (
            "n = LayerNormalization<axis: int = -1>(x, s, c)  y = Add(b, n)",
            f"{ONES}, float[3] b = {{2, 3, 4}}, float[3] c = {{1, 1, 1}}",
            "y = LayerNormalization<axis: int = -1>(x, s, norm_weight)",
            f"{ONES}, float[3] norm_weight = {{3, 4, 5}}",
        ),
        (
            "n = RMSNormalization(x, s)  y = Mul(n, k)",
            f"{ONES}, float[3] k = {{2, 3, 4}}",
            "y = RMSNormalization(x, k)",
            "float[3] k = {2, 3, 4}",
        ),
    ],
)
def test_a_weight_is_taken_in(parse, assert_graph, body, weights, expected, kept):
    model = parse(graph(body, weights))
    assert FUSE_NORMALIZATION.run(model).changed == 1
    assert_graph(model, graph(expected, kept))


def test_weights_that_are_inputs_are_taken_in_where_their_shape_is_proven(parse, assert_graph):
    more = ", float[3] k, float[3] b"
    model = parse(graph(NORM + "m = Mul(n, k)  y = Add(m, b)", ONES, more=more))
    FUSE_NORMALIZATION.run(model)
    expected = f"{HEAD} g (float[2,3] x{more}) => (float[2,3] y)"
    assert_graph(model, expected + " { y = LayerNormalization<axis: int = -1>(x, k, b) }")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            graph(
                NORM + "y = Mul(n, k)",
                f"{ONES}, float[3] k = {{2, 3, 4}}",
                y="float[2,3] y, float[2,3] n",
            ),
            "'n' is an output of the graph",
        ),
        (
            graph(NORM + "y = Mul(n, k)", f"{ONES}, float[2,1] k = {{2, 3}}"),
            "'k' is not known to be of the shape of the normalised axes",
        ),
        (
            graph(
                NORM + "y = Mul(n, k)", f"{ONES}, float[1,1,3] k = {{2, 3, 4}}", y="float[1,2,3] y"
            ),
            "'k' is not known to be of the shape of the normalised axes",
        ),
        (
            graph(NORM + "y = Mul(n, k)", ONES, more=", float[N] k"),
            "'k' is not known to be of the shape of the normalised axes",
        ),
        (
            graph(NORM + "y = Mul(n, k)", ONES, more=", float k"),
            "'k' is no constant, and not of the shape of the normalised axes",
        ),
        (
            graph(NORM + "y = Mul(n, k)", "float[3] s = {1, 2, 3}", more=", float[3] k"),
            "'s' and 'k' are not both constant",
        ),
        (
            graph(NORM + "y = Mul(n, k)", "float[3] k = {2, 3, 4}", more=", float[3] s"),
            "'s' and 'k' are not both constant",
        ),
        (
            graph(
                "n, mean = LayerNormalization(x, s)  y = Mul(n, k)  z = Neg(mean)",
                f"{ONES}, float[3] k = {{2, 3, 4}}",
                y="float[2,3] y, float[2,1] z",
            ),
            "the statistics 'mean' are read",
        ),
        (
            graph(
                "n = LayerNormalization(x, s, b)  y = Mul(n, k)",
                f"{ONES}, float[3] b = {{1, 2, 3}}, float[3] k = {{2, 3, 4}}",
            ),
            "a bias comes before the scale",
        ),
        (
            graph(
                "n, mean, inverse = LayerNormalization(x, s)  y = Mul(n, k)",
                f"{ONES}, float[3] k = {{2, 3, 4}}",
                y="float[2,3] y, float[2,1] mean",
            ),
            "the statistics 'mean' are read",
        ),
        (
            graph(NORM + "y = Mul(n, k)", f"{ONES}, float[3] k = {{2, 3, 4}}", x="float[2,N]"),
            "the sizes of the normalised axes are not known",
        ),
        (
            graph(
                NORM + "y = Add(n, b)",
                f"{ONES}, float[3] b = {{2, 3, 4}}",
                y="float[2,3] y, float[2,3] n",
            ),
            "'n' is an output of the graph",
        ),
        (
            graph(NORM + "y = Mul(n, k)", "float[2,3] s = {1,2,3,4,5,6}, float[3] k = {2, 3, 4}"),
            "'s' is not of the shape of the normalised axes",
        ),
        (
            graph(NORM + "y = Add(b, n)", f"{ONES}, float[2,1] b = {{2, 3}}"),
            "'b' is not known to be of the shape of the normalised axes",
        ),
        (
            graph(
                NORM.replace("s)", "s, c)") + "y = Add(n, b)", ONES, more=", float[3] b, float[3] c"
            ),
            "'c' and 'b' are not both constant",
        ),
        (
            graph(
                NORM + "y = Mul(n, k)",
                "float16[3] s = {0, 1, 2}, float16[3] k = {0, 1, 2}",
                x="float16[2,3]",
                y="float16[2,3] y",
            ),
            "two weights in half precision would be rounded once more",
        ),
    ],
)
def test_a_weight_that_may_not_be_taken_in(parse, assert_graph, text, reason):
    model = parse(text)
    stats = FUSE_NORMALIZATION.run(model)
    assert [refusal.reason for refusal in stats.refused] == [reason]
    assert_graph(model, text)


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (0, "the sizes of the normalised axes are not known"),
        (1, "'k' is not known to be of the shape of the normalised axes"),
    ],
)
def test_an_unknown_rank_is_left_alone(parse, index, reason):
    model = parse(graph(NORM + "y = Mul(n, k)", ONES, more=", float[3] k"))
    model.graph.inputs[index].shape = None
    stats = FUSE_NORMALIZATION.run(model)
    assert [refusal.reason for refusal in stats.refused] == [reason]


@pytest.mark.parametrize(
    "text",
    [
        graph(NORM + "y = Add(n, r)", ONES, more=", float[2,3] r"),
        graph(NORM + "y = Mul(n, n)", ONES),
        graph("n = RMSNormalization(x, s)  y = Add(n, b)", f"{ONES}, float[3] b = {{2, 3, 4}}"),
    ],
)
def test_residuals_and_gates_are_no_weights(parse, text):
    stats = FUSE_NORMALIZATION.run(parse(text))
    assert not stats.changed
    assert not stats.refused


HALF = """<ir_version: 10, opset_import: ["" : 23]>
    g (float16[2,3] x) => (float16[2,3] y) <float[3] s = {1, 1, 1}, float16[3] k = {0, 1, 2}> {
        wide = Cast<to: int = 1>(x)
        n = RMSNormalization(wide, s)
        narrow = Cast<to: int = 10>(n)
        y = Mul(narrow, k)
    }"""


def test_casts_to_float32_and_back_go(parse, assert_graph):
    model = parse(HALF)
    assert FUSE_NORMALIZATION.run(model).counts == (("norm-casts", 1), ("norm-scale", 1))
    assert_graph(
        model,
        """<ir_version: 10, opset_import: ["" : 23]>
        g (float16[2,3] x) => (float16[2,3] y) <float16[3] k = {0, 1, 2}>
        { y = RMSNormalization(x, k) }""",
    )


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("{1, 1, 1}", "{1, 2, 3}", "the scale is applied before the cast"),
        ("to: int = 10", "to: int = 16", "the casts are not from float16 and back"),
        ("float16[2,3] x", "double[2,3] x", "the casts are not from float16 and back"),
        ("(float16[2,3] y)", "(float16[2,3] y, float[2,3] n)", "'n' is an output of the graph"),
        (
            "RMSNormalization(wide, s)",
            "RMSNormalization<stash_type: int = 10>(wide, s)",
            "the normalisation does not compute in float32",
        ),
        (
            "n = RMSNormalization(wide, s)",
            "n = LayerNormalization(wide, s, s)",
            "the scale is applied before the cast",
        ),
        (
            "n = RMSNormalization(wide, s)",
            "n, mean = LayerNormalization(wide, s)  z = Neg(mean)",
            "the statistics 'mean' are read",
        ),
    ],
)
def test_casts_that_stay(parse, old, new, reason):
    text = HALF.replace(old, new)
    if "Neg(mean)" in text:
        text = text.replace("(float16[2,3] y)", "(float16[2,3] y, float[2,1] z)")
    stats = FUSE_NORMALIZATION.run(parse(text))
    assert reason in [refusal.reason for refusal in stats.refused]
    assert "norm-casts" not in dict(stats.counts)


def test_casts_by_way_of_another_type_stay(parse):
    text = HALF.replace("to: int = 1>", "to: int = 16>").replace(
        "float[3] s = {1, 1, 1}", "bfloat16[3] s = {16256, 16256, 16256}"
    )
    stats = FUSE_NORMALIZATION.run(parse(text))
    reasons = [refusal.reason for refusal in stats.refused if refusal.rule == "norm-casts"]
    assert reasons == ["the normalisation is not in float32"]


def test_casts_that_narrow_stay(parse):
    text = HALF.replace("float16", "double").replace("to: int = 10", "to: int = 11")
    stats = FUSE_NORMALIZATION.run(parse(text))
    reasons = [refusal.reason for refusal in stats.refused if refusal.rule == "norm-casts"]
    assert reasons == ["the casts are not from float16 and back"]


def test_a_cast_behind_alone_stays(parse):
    text = HALF.replace("float16[2,3] x", "float[2,3] x").replace("Cast<to: int = 1>", "Neg")
    stats = FUSE_NORMALIZATION.run(parse(text))
    assert not stats.changed
    assert not stats.refused


def test_an_engine_that_computes_in_the_type_of_its_input_keeps_the_casts(parse):
    assert not FUSE_NORMALIZATION.run(parse(HALF), Context("primitive")).changed


def draw_affine(draw):
    pattern = Pattern()
    dtype = draw(st.sampled_from([np.float32, np.float32, np.float16]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    axis = draw(st.integers(-rank, rank - 1))
    sizes = shape[axis:]
    x = pattern.input(random.normal(size=shape).astype(dtype))
    operator = draw(st.sampled_from(["LayerNormalization", "RMSNormalization"]))
    ones = draw(st.booleans())
    plain = np.ones(sizes) if ones else random.normal(size=sizes)
    between = dtype == np.float16 and draw(st.booleans())
    if between:
        out = pattern.add("Cast", x, to=ir.DataType.FLOAT.value)
        scale = pattern.weight(plain.astype(np.float32))
        out = pattern.add(operator, out, scale, axis=axis)
        out = pattern.add("Cast", out, to=ir.DataType.FLOAT16.value)
    else:
        out = pattern.add(operator, x, pattern.weight(plain.astype(dtype)), axis=axis)
    return pattern, out, shape, sizes, dtype, random


def draw_followed(draw):
    """Draw a normalisation and one or two operators behind it."""
    pattern, out, shape, sizes, dtype, random = draw_affine(draw)
    for operator in draw(st.sampled_from([["Mul"], ["Add"], ["Mul", "Add"], ["Add", "Mul"]])):
        dims = draw(st.sampled_from([sizes, (1,), (), shape, (1, *sizes), (1, *shape)]))
        array = random.normal(size=dims).astype(dtype)
        weight = pattern.weight(array) if draw(st.booleans()) else pattern.input(array)
        out = pattern.add(operator, *draw(st.permutations([out, weight])))
    return pattern


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_outputs_stay_in_any_surrounding(data):
    def rewrite(model):
        apply_rules(model, "norm", FUSE_NORMALIZATION.rules)
        assert not apply_rules(model, "norm", FUSE_NORMALIZATION.rules).changed

    check_kept(surround(data.draw, draw_followed(data.draw), opset=23), rewrite)


def test_each_rule_fires_on_what_is_drawn():
    fired = times_each_fires(draw_followed, FUSE_NORMALIZATION.rules, opset=23)
    assert min(fired[name] for name in ("norm-scale", "norm-bias", "norm-casts")) >= 1


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_it_fires_where_nothing_is_in_the_way(data):
    pattern, out, _, sizes, dtype, random = draw_affine(data.draw)
    pattern.add("Mul", out, pattern.weight(random.normal(size=sizes).astype(dtype)))
    model = alone(pattern, opset=23)
    stats = apply_rules(model, "norm", FUSE_NORMALIZATION.rules)
    refused = {refusal.reason for refusal in stats.refused}
    assert len(model.graph) == 1 or refused <= {
        "two weights in half precision would be rounded once more",
        "the scale is applied before the cast",
    }
    assert len(model.graph) == 1 or refused
