"""Batch normalisation before a convolution, in the weights of the convolution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, alone, check_kept, surround

from leptonc.passes.fusions.conv.input import RULES
from leptonc.passes.rewriting.rewriter import apply_rules

HEAD = '<ir_version: 10, opset_import: ["" : {}]>\n'
# With epsilon 1: s / sqrt(v + 1) is 1 and 1; the shifts are 0 and 1.
NORM = "float[2] s = {2, 4}, float[2] o = {1, 0}, float[2] m = {1, -1}, float[2] v = {3, 15}"
WEIGHT = "float[1,2,1,1] w = {3, 5}"
BODY = "n = BatchNormalization<epsilon = 1.0>(x, s, o, m, v)  y = Conv(n, w)"


def graph(body=BODY, weights=f"{NORM}, {WEIGHT}", *, x="float[n,2,4,4]", more="", out="", opset=20):
    kind = x.partition("[")[0]
    outputs = f"{kind}[a,b,c,d] y{out}"
    return f"{HEAD.format(opset)} g ({x} x{more}) => ({outputs}) <{weights}> {{ {body} }}"


def fuse(model):
    return apply_rules(model, "convolution", RULES)


def test_scale_and_shift_go_into_the_weights(parse, assert_graph):
    weights = f"{NORM.replace('{2, 4}', '{4, 4}')}, {WEIGHT}, float[1] b = {{7}}"
    model = parse(graph(BODY.replace("(n, w)", "(n, w, b)"), weights))
    assert fuse(model).counts == (("batch-norm-conv", 1),)
    # The scales are 2 and 1, the shifts -1 and 1: 7 - 1 * 3 + 1 * 5.
    assert_graph(
        model,
        graph("y = Conv(x, weight, bias)", "float[1,2,1,1] weight = {6, 5}, float[1] bias = {9}"),
    )
    assert not fuse(model).changed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            graph(BODY.replace("(n, w)", "<pads: ints = [1, 1, 1, 1]>(n, w)")),
            "the convolution pads",
        ),
        (
            graph(BODY.replace("(n, w)", '<auto_pad: string = "SAME_UPPER">(n, w)')),
            "the convolution pads",
        ),
        (
            graph(
                BODY.replace("n = Batch", "n, p, q = Batch").replace(
                    "1.0>", "1.0, training_mode = 1>"
                ),
            ),
            "it is in training mode",
        ),
        (graph(opset=8), "opset 8 has another BatchNormalization"),
        (
            graph(weights=NORM, more=", float[1,2,1,1] w"),
            "the weight is no constant of a float type",
        ),
        (
            graph(x="double[n,2,4,4]", weights=f"{NORM}, {WEIGHT}".replace("float", "double")),
            "the weight is no constant of a float type",
        ),
        (
            graph(BODY.replace("(n, w)", "(n, w, b)"), more=", float[1] b"),
            "the bias is no constant",
        ),
        (
            graph(weights=f"{NORM.replace('{3, 15}', '{-1, 15}')}, {WEIGHT}"),
            "a scale or a shift is not finite",
        ),
        (
            graph(weights=f"{NORM}, float[1,4,1,1] w = {{1, 2, 3, 4}}"),
            "there is not one number per input channel",
        ),
        (
            graph(BODY + "  z = Conv(x, w)", out=", float[a,b,c,d] z"),
            "the weight is read by another node",
        ),
        (graph(out=", float[n,2,4,4] n"), "'n' is an output of the graph"),
        (
            graph(BODY + "  [other] z = Neg(n)", out=", float[a,b,c,d] z"),
            "'n' is also read by 'other' (Neg)",
        ),
    ],
)
def test_a_precondition_that_does_not_hold(parse, text, reason):
    stats = fuse(parse(text))
    assert not stats.changed
    assert [refusal.reason for refusal in stats.refused] == [reason]


@pytest.mark.parametrize(
    "text",
    [
        graph(
            weights=f"{NORM}, {WEIGHT}".replace("float[2] m = {1, -1}, ", ""), more=", float[2] m"
        ),
        graph(BODY.replace("BatchNormalization<epsilon = 1.0>(x, s, o, m, v)", "Neg(x)")),
        graph(BODY.replace("Conv(n, w)", "Conv(x, w)")),
    ],
)
def test_other_forms_are_left_alone(parse, text):
    stats = fuse(parse(text))
    assert not stats.changed
    assert not stats.refused


@st.composite
def layers(draw):
    """A normalised input and a convolution of any kind."""
    pattern, random = Pattern(), np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float32, np.float32, np.float16]))
    groups, each, out = (draw(st.integers(1, 2)) for _ in range(3))
    spatial = draw(st.integers(1, 2))
    channels = groups * each

    def array(*shape):
        return random.normal(size=shape).astype(dtype)

    terms = [array(channels), array(channels), array(channels), abs(array(channels)) + dtype(1)]
    x = pattern.input(array(2, channels, *(5,) * spatial))
    norm = pattern.add("BatchNormalization", x, *map(pattern.weight, terms), epsilon=1e-3)
    inputs = [norm, pattern.weight(array(groups * out, each, *(3,) * spatial))]
    if draw(st.booleans()):
        inputs.append(pattern.weight(array(groups * out)))
    more = draw(st.sampled_from([{}, {"strides": [2] * spatial}, {"auto_pad": "VALID"}]))
    padded = {"pads": [1] * 2 * spatial} if draw(st.integers(0, 3)) == 0 and not more else {}
    pattern.add("Conv", *inputs, group=groups, **more, **padded)
    return pattern


@settings(max_examples=30, deadline=None)
@given(st.data(), layers())
def test_outputs_stay_in_any_surrounding(data, pattern):
    check_kept(surround(data.draw, pattern), fuse)


@settings(max_examples=20, deadline=None)
@given(layers())
def test_it_fires_where_nothing_is_in_the_way(pattern):
    stats = fuse(alone(pattern))
    padded = any(attribute.name == "pads" for attribute in pattern.nodes[-1].attribute)
    assert stats.changed == (not padded)
