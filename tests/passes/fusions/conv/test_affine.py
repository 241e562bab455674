"""Scales and shifts per channel in the weights of the layer before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, surround

from leptonc.passes.fusions.conv.fuse import FUSE_CONVOLUTION

HEAD = '<ir_version: 10, opset_import: ["" : {}]>\n'
NORM = "float[2] s = {2, 4}, float[2] o = {1, 0}, float[2] m = {1, -1}, float[2] v = {3, 15}"


def fuse(model):
    return FUSE_CONVOLUTION.run(model)


def test_batch_normalization_goes_into_the_weights(parse, assert_graph):
    """s / sqrt(v + 1) is 1 and 1; the shift is o - m."""
    model = parse(
        f"""g (float[n,1,4,4] x) => (float[n,2,4,4] y)
        <float[2,1,1,1] w = {{3, 5}}, float[2] b = {{7, 9}}, {NORM}> {{
            c = Conv(x, w, b)  y = BatchNormalization <epsilon = 1.0> (c, s, o, m, v)
        }}"""
    )
    stats = fuse(model)
    assert stats.counts == (("layer-batch-norm", 1),)
    assert_graph(
        model,
        """g (float[n,1,4,4] x) => (float[n,2,4,4] y)
        <float[2,1,1,1] weight = {3, 5}, float[2] bias = {7, 10}> { y = Conv(x, weight, bias) }""",
    )
    assert not fuse(model).changed


@pytest.mark.parametrize(
    ("operator", "weight", "bias"),
    [
        ("y = Mul(k, c)", "{6, 20}", "{14, 36}"),
        ("y = Div(c, k)", "{1.5, 1.25}", "{3.5, 2.25}"),
        ("y = Add(c, k)", "{3, 5}", "{9, 13}"),
        ("y = Sub(c, k)", "{3, 5}", "{5, 5}"),
    ],
)
def test_arithmetic_goes_into_the_weights(parse, run, operator, weight, bias):
    text = f"""g (float[1,1,1,1] x) => (float[1,2,1,1] y)
    <float[2,1,1,1] w = {{3, 5}}, float[2] b = {{7, 9}}, float[2,1,1] k = {{2, 4}}> {{
        c = Conv(x, w, b)  {operator}
    }}"""
    model = parse(text)
    assert fuse(model).counts == (("layer-affine", 1),)
    (conv,) = model.graph
    numbers = [value.const_value.numpy().reshape(-1).tolist() for value in conv.inputs[1:]]
    assert numbers == [
        [float(item) for item in found.strip("{}").split(",")] for found in (weight, bias)
    ]
    feeds = {"x": np.full((1, 1, 1, 1), 1.5, np.float32)}
    np.testing.assert_allclose(run(model, feeds)[0], run(parse(text), feeds)[0], rtol=1e-6)


CONV = "float[2,1,1,1] w = {3, 5}, float[2] b = {7, 9}"


@pytest.mark.parametrize(
    ("inputs", "weights", "body", "reason"),
    [
        pytest.param(
            "",
            f"{CONV}, {NORM}",
            "c = Conv(x, w, b)  y, p, q = BatchNormalization <training_mode = 1> (c, s, o, m, v)",
            "it is in training mode",
            id="training",
        ),
        pytest.param(
            "",
            f"{CONV}, float[2,1,1] k = {{2, 4}}",
            "c = Conv(x, w, b)  y = Mul(c, k)  [other] z = Neg(c)",
            "'c' is also read by 'other' (Neg)",
            id="the convolution is read elsewhere",
        ),
        pytest.param(
            ", float[2,1,1,1] w",
            "float[2,1,1] k = {2, 4}",
            "c = Conv(x, w)  y = Mul(c, k)",
            "the weight is no constant of a float type",
            id="the weight is an input",
        ),
        pytest.param(
            ", float[2] b",
            "float[2,1,1,1] w = {3, 5}, float[2,1,1] k = {2, 4}",
            "c = Conv(x, w, b)  y = Mul(c, k)",
            "the bias is no constant",
            id="the bias is an input",
        ),
        pytest.param(
            "",
            f"{CONV}, float[2,1,1] k = {{0, 4}}",
            "c = Conv(x, w, b)  y = Div(c, k)",
            "a scale or a shift is not finite",
            id="a division by zero",
        ),
        pytest.param(
            "",
            f"{CONV}, float[2,1,1] k = {{2, 4}}",
            "c = Conv(x, w, b)  y = Mul(c, k)  [other] z = Conv(x, w)",
            "the weight 'w' is also read by 'other'",
            id="the weight is shared",
        ),
    ],
)
def test_near_misses_say_why(parse, inputs, weights, body, reason):
    model = parse(
        HEAD.format(20)
        + f"g (float[n,1,4,4] x{inputs}) => (float[n,2,4,4] y) <{weights}> {{ {body} }}"
    )
    stats = fuse(model)
    assert not stats.changed
    assert [refusal.reason for refusal in stats.refused] == [reason]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("c = Conv(x, w)  y = Mul(c, r)", id="one number per row of the image"),
        pytest.param("c = Conv(x, w)  y = Sub(h, c)", id="taken off the other way round"),
        pytest.param("c = Conv(x, w)  y = Div(h, c)", id="divided the other way round"),
        pytest.param("c = Conv(x, w)  y = Mul(c, x)", id="times something that is no constant"),
        pytest.param("c = Conv(x, w)  y = Mul(c, t)", id="more dimensions than the result has"),
    ],
)
def test_what_is_not_per_channel_stays(parse, body):
    model = parse(
        f"""g (float[n,2,2,2] x) => (float[n,2,2,2] y) <float[2,2,1,1] w = {{1, 2, 3, 4}},
        float[2,1] r = {{1, 2}}, float[2,1,1] h = {{1, 2}}, float[1,1,2,1,1] t = {{1, 2}}> {{
            {body}
        }}"""
    )
    assert not fuse(model).changed


@st.composite
def layers(draw):
    """A convolution or Gemm of any kind with one to three affine operators after it."""
    pattern, rng = Pattern(), np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float32, np.float32, np.float64]))

    def array(*shape):
        return rng.normal(size=shape).astype(dtype)

    kind = draw(st.sampled_from(["Conv", "ConvTranspose", "Gemm"]))
    if kind != "Gemm":
        dtype = np.float32
    groups = draw(st.sampled_from([1, 2])) if kind != "Gemm" else 1
    spatial = draw(st.integers(1, 2)) if kind != "Gemm" else 0
    channels = 4
    attributes = {"group": groups}
    if kind == "Conv":
        x = pattern.input(array(2, 4, *(5,) * spatial))
        w = pattern.weight(array(channels, 4 // groups, *(3,) * spatial))
    elif kind == "ConvTranspose":
        x = pattern.input(array(2, 4, *(3,) * spatial))
        w = pattern.weight(array(4, channels // groups, *(2,) * spatial))
    else:
        across = draw(st.booleans())
        x = pattern.input(array(3, 5))
        w = pattern.weight(array(channels, 5) if across else array(5, channels))
        attributes = {"transB": int(across), "alpha": draw(st.sampled_from([1.0, 0.5]))}
        attributes["beta"] = draw(st.sampled_from([1.0, 2.0]))
    inputs = [x, w]
    if draw(st.booleans()):
        shape = (
            (channels,) if kind != "Gemm" else draw(st.sampled_from([(channels,), (1, 1), (3, 1)]))
        )
        inputs.append(pattern.weight(array(*shape)))
    value = pattern.add(kind, *inputs, **attributes)
    for _ in range(draw(st.integers(1, 3))):
        operator = draw(st.sampled_from(["BatchNormalization", "Mul", "Add", "Sub", "Div"]))
        if operator == "BatchNormalization":
            terms = [array(channels), array(channels), array(channels), abs(array(channels)) + 1]
            names = [pattern.weight(term) for term in terms]
            value = pattern.add(operator, value, *names, epsilon=1e-3)
            continue
        shape = draw(st.sampled_from([(channels, *(1,) * spatial), (1,), ()]))
        other = pattern.weight(np.asarray(array(*shape)) + np.asarray(3, dtype))
        first = draw(st.booleans()) and operator in ("Mul", "Add")
        value = pattern.add(operator, *((other, value) if first else (value, other)))
    return pattern


@settings(max_examples=80, deadline=None)
@given(st.data(), layers())
def test_outputs_stay(data, pattern):
    def rewrite(model):
        fuse(model)
        assert not fuse(model).changed

    check_kept(surround(data.draw, pattern), rewrite)
