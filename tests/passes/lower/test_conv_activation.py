"""Convolutions with their activations, for ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, run_plain, surround

from leptonc.passes.lower.conv_activation import LOWER_CONVOLUTION
from leptonc.passes.pipeline import Context

HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>\n'
W = "float[2,1,1,1] w = {3, 5}"


def graph(body: str, weights: str = W, inputs: str = "") -> str:
    return HEAD + f"g (float[n,1,4,4] x{inputs}) => (float[n,2,4,4] y) <{weights}> {{ {body} }}"


@pytest.mark.parametrize(
    ("after", "fused"),
    [
        ("y = Relu(c)", 'activation = "Relu"'),
        (
            "y = LeakyRelu <alpha = 0.5> (c)",
            'activation = "LeakyRelu", activation_params = [0.5]',
        ),
        ("y = Clip(c, a, b)", 'activation = "Clip", activation_params = [0.0, 6.0]'),
    ],
)
def test_the_activation_joins_the_convolution(parse, assert_graph, after, fused):
    bounds = ", float a = {0}, float b = {6}" if "Clip" in after else ""
    model = parse(graph(f"c = Conv <group = 1> (x, w)  {after}", W + bounds))
    assert LOWER_CONVOLUTION.run(model, Context("ort-cpu")).counts == (("conv-activation", 1),)
    assert_graph(model, graph(f"y = com.microsoft.FusedConv <group = 1, {fused}> (x, w)"))


def test_a_sum_joins_on_cuda_only(parse, assert_graph):
    text = graph("c = Conv(x, w)  s = Add(z, c)  y = Relu(s)", inputs=", float[k,2,4,4] z")
    model = parse(text)
    assert not LOWER_CONVOLUTION.run(model, Context("ort-cpu")).changed
    assert not LOWER_CONVOLUTION.run(model, Context("ort-cuda")).changed
    known = text.replace("float[k,", "float[n,")
    model = parse(known)
    assert LOWER_CONVOLUTION.run(model, Context("ort-cuda")).counts == (("conv-sum-activation", 1),)
    fused = 'y = com.microsoft.FusedConv <activation = "Relu"> (x, w, , z)'
    assert_graph(model, graph(fused, inputs=", float[n,2,4,4] z"))


@pytest.mark.parametrize("target", ["generic", "primitive"])
def test_other_targets_keep_two_nodes(parse, target):
    assert not LOWER_CONVOLUTION.run(
        parse(graph("c = Conv(x, w)  y = Relu(c)")), Context(target)
    ).changed


@pytest.mark.parametrize(
    ("body", "inputs", "reason"),
    [
        ("c = Conv(x, w)  y = Clip(c, a)", ", float a", "the bounds are not both constants"),
        (
            "c = Conv(x, w)  y = Relu(c)  [other] z = Neg(c)",
            "",
            "'c' is also read by 'other' (Neg)",
        ),
    ],
)
def test_near_misses_say_why(parse, body, inputs, reason):
    stats = LOWER_CONVOLUTION.run(parse(graph(body, inputs=inputs)), Context("ort-cpu"))
    assert not stats.changed
    assert [refusal.reason for refusal in stats.refused] == [reason]


ACTIVATIONS = {
    "Relu": {},
    "Sigmoid": {},
    "Tanh": {},
    "LeakyRelu": {"alpha": 0.3},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "Clip": {},
}


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(sorted(ACTIVATIONS)), st.integers(1, 2), st.integers(0, 99))
def test_outputs_stay(data, activation, groups, seed):
    pattern, rng = Pattern(), np.random.default_rng(seed)
    x = pattern.input(rng.normal(size=(2, 2, 5, 5)).astype(np.float32))
    w = pattern.weight(rng.normal(size=(4, 2 // groups, 3, 3)).astype(np.float32))
    value = pattern.add("Conv", x, w, group=groups, pads=[1, 1, 1, 1])
    bounds = [pattern.weight(np.float32(bound)) for bound in (-0.5, 0.5)]
    more = bounds if activation == "Clip" else []
    pattern.add(activation, value, *more, **ACTIVATIONS[activation])

    def rewrite(model):
        LOWER_CONVOLUTION.run(model, Context("ort-cpu"))
        assert not LOWER_CONVOLUTION.run(model, Context("ort-cpu")).changed

    surrounded = surround(data.draw, pattern)
    assert run_plain(surrounded.model, surrounded.feeds)
    check_kept(surrounded, rewrite)
