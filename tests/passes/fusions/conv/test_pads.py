"""Pads and normalisation before a convolution or pooling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, surround

from leptonc.passes.fusions.conv.fuse import FUSE_CONVOLUTION

WEIGHTS = "float[1,1,2,2] w = {1, 2, 3, 4}, int64[8] p = {0, 0, 1, 0, 0, 0, 0, 1}"


def fuse(model):
    return FUSE_CONVOLUTION.run(model)


def padded(body: str, weights: str = WEIGHTS) -> str:
    return f"g (float[n,1,4,4] x) => (float[n,1,h,w] y) <{weights}> {{ {body} }}"


@pytest.mark.parametrize(
    ("node", "after"),
    [
        ("y = Conv(t, w)", "y = Conv <pads = [1, 0, 0, 1]> (x, w)"),
        (
            "y = Conv <pads = [1, 1, 1, 1]> (t, w)",
            "y = Conv <pads = [2, 1, 1, 2]> (x, w)",
        ),
        (
            "y = AveragePool <kernel_shape = [2, 2]> (t)",
            "y = AveragePool <kernel_shape = [2, 2], pads = [1, 0, 0, 1], count_include_pad = 1> (x)",
        ),
    ],
)
def test_pads_are_added_up(parse, assert_graph, node, after):
    model = parse(padded(f"t = Pad(x, p)  {node}"))
    assert fuse(model).changed == 1
    kept = "<float[1,1,2,2] w = {1, 2, 3, 4}>" if "(x, w)" in after else ""
    assert_graph(model, f"g (float[n,1,4,4] x) => (float[n,1,h,w] y) {kept} {{ {after} }}")


MAX = "y = MaxPool <kernel_shape = [2, 2]> (t)"
MEAN = "y = AveragePool <kernel_shape = [2, 2]> (t)"


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        ("t = Pad(x, p, v)  y = Conv(t, w)", "float v = {1}", "it pads with 1.0"),
        ("t = Pad(x, q)  y = Conv(t, w)", "int64[8] q = {0,1,0,0,0,0,0,0}", "it pads samples or"),
        ("t = Pad(x, q)  y = Conv(t, w)", "int64[8] q = {0,0,-1,0,0,0,0,0}", "it cuts"),
        (
            'y1 = Pad(x, p)  y = Conv <auto_pad = "SAME_UPPER"> (y1, w)',
            "",
            "the pads of the node follow from the size of its input",
        ),
        (
            "t = Pad(x, p)  y = Conv(t, w)  [other] z = Neg(t)",
            "",
            "'t' is also read by 'other' (Neg)",
        ),
        (f"t = Pad(x, p)  {MAX}", "", "0.0 may be the largest in a window"),
        (f"r = Relu(x)  t = Pad(r, p, v)  {MAX}", "float v = {1}", "1.0 may be the largest"),
        (
            "r = Relu(x)  t = Pad(r, p)  y = MaxPool <kernel_shape = [2, 2], ceil_mode = 1> (t)",
            "",
            "the size of the result is rounded up",
        ),
        (
            "r = Relu(x)  t = Pad(r, p)  y = MaxPool <kernel_shape = [1, 2]> (t)",
            "",
            "a window could see nothing but padding",
        ),
        (
            "r = Relu(x)  t = Pad(r, p)  y = MaxPool <kernel_shape = [2, 2], dilations = [2, 1]> (t)",
            "",
            "the window has gaps",
        ),
        (
            "t = Pad(x, p)  y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (t)",
            "",
            "its own padding does not count, zeros do",
        ),
        (f"t = Pad(x, p, v)  {MEAN}", "float v = {1}", "it pads with 1.0"),
    ],
)
def test_near_misses_say_why(parse, body, weights, reason):
    model = parse(padded(body, ", ".join(filter(None, (WEIGHTS, weights)))))
    stats = fuse(model)
    assert not stats.changed
    assert len(stats.refused) == 1
    assert stats.refused[0].reason.startswith(reason)


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_other_modes_are_no_zeros(parse, mode):
    model = parse(padded(f't = Pad <mode = "{mode}"> (x, p)  y = Conv(t, w)'))
    assert not fuse(model).changed


@st.composite
def windows(draw):
    pattern, rng = Pattern(), np.random.default_rng(draw(st.integers(0, 99)))
    x = pattern.input(rng.normal(size=(2, 2, 5, 6)).astype(np.float32))
    source = pattern.add(draw(st.sampled_from(["Relu", "Neg"])), x)
    low = draw(st.sampled_from([0, 0, -1]))
    pads = [0, 0, *draw(st.lists(st.integers(low, 2), min_size=2, max_size=2))]
    pads += [0, 0, *draw(st.lists(st.integers(low, 2), min_size=2, max_size=2))]
    inputs = [source, pattern.weight(np.array(pads, np.int64))]
    fill = draw(st.sampled_from([None, 0.0, -np.inf, -1.0, 1.0]))
    if fill is not None:
        inputs.append(pattern.weight(np.float32(fill)))
    value = pattern.add("Pad", *inputs)
    own = draw(st.sampled_from([[0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]]))
    kind = draw(st.sampled_from(["Conv", "MaxPool", "AveragePool"]))
    if kind == "Conv":
        weight = pattern.weight(rng.normal(size=(2, 2, 3, 3)).astype(np.float32))
        pattern.add(
            "Conv", value, weight, pads=own, strides=draw(st.sampled_from([[1, 1], [2, 1]]))
        )
        return pattern
    attributes = {"kernel_shape": [3, 3], "pads": own, "strides": [1, 2]}
    if kind == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    attributes["ceil_mode"] = draw(st.integers(0, 1))
    pattern.add(kind, value, **attributes)
    return pattern


@settings(max_examples=120, deadline=None)
@given(st.data(), windows())
def test_outputs_stay(data, pattern):
    def rewrite(model):
        fuse(model)
        assert not fuse(model).changed

    check_kept(surround(data.draw, pattern), rewrite)


NORM = "float[2] s = {2, 4}, float[2] o = {1, 2}, float[2] m = {1, -1}, float[2] v = {3, 15}"


def test_normalisation_before_a_convolution_goes_into_it(parse, assert_graph):
    """s / sqrt(v + 1) is 1 for both channels, and the shift is o - m: 0 and 3."""
    model = parse(
        f"""g (float[n,2,4,4] x) => (float[n,1,4,4] y) <float[1,2,1,1] w = {{5, 7}}, {NORM}> {{
            b = BatchNormalization <epsilon = 1.0> (x, s, o, m, v)  y = Conv(b, w)
        }}"""
    )
    assert fuse(model).counts == (("batch-norm-conv", 1),)
    assert_graph(
        model,
        """g (float[n,2,4,4] x) => (float[n,1,4,4] y)
        <float[1,2,1,1] weight = {5, 7}, float[1] bias = {21}> { y = Conv(x, weight, bias) }""",
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "b = BatchNormalization(x, s, o, m, v)  y = Conv <pads = [1, 1, 1, 1]> (b, w)",
            "the convolution pads",
        ),
        (
            "b = BatchNormalization(x, s, o, m, v)  y = Conv(b, w)  [other] z = Neg(b)",
            "'b' is also read by 'other' (Neg)",
        ),
        (
            "b, p, q = BatchNormalization <training_mode = 1> (x, s, o, m, v)  y = Conv(b, w)",
            "it is in training mode",
        ),
    ],
)
def test_normalisation_that_stays_says_why(parse, body, reason):
    model = parse(
        f"g (float[n,2,4,4] x) => (float[n,1,h,w] y) <float[1,2,1,1] w = {{5, 7}}, {NORM}> {{{body}}}"
    )
    stats = fuse(model)
    assert not stats.changed
    assert [refusal.reason for refusal in stats.refused] == [reason]


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([1, 2]), st.booleans(), st.integers(0, 99))
def test_outputs_stay_behind_a_normalisation(data, groups, bias, seed):
    pattern, rng = Pattern(), np.random.default_rng(seed)

    def array(*shape):
        return rng.normal(size=shape).astype(np.float32)

    terms = [array(4), array(4), array(4), abs(array(4)) + 1]
    x = pattern.input(array(2, 4, 5, 5))
    norm = pattern.add("BatchNormalization", x, *(pattern.weight(term) for term in terms))
    inputs = [norm, pattern.weight(array(6, 4 // groups, 3, 3))]
    if bias:
        inputs.append(pattern.weight(array(6)))
    pattern.add("Conv", *inputs, group=groups)

    def rewrite(model):
        fuse(model)
        assert not fuse(model).changed

    check_kept(surround(data.draw, pattern), rewrite)
