"""The factors of Gemm: which go into the weights, which stay, and that the outputs stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from linear_graphs import Draw, operators, reasons, rewritten, times_fired
from surroundings import Pattern

from leptonc.passes.fusions.linear.factors import RULES

WEIGHTS = "float[2,2] w = {1,2,3,4}, float[2] b = {1,-1}"


def graph(node: str, weights: str = WEIGHTS, inputs: str = "float[n,2] x") -> str:
    return f"g ({inputs}) => (float[n,2] y) <{weights}> {{ y = {node} }}"


def test_both_factors_go_into_the_weights(assert_graph):
    model, stats = rewritten(graph("Gemm<alpha = 2.0, beta = 0.5, transB = 1>(x, w, b)"), RULES)
    assert stats.counts == (("gemm-factors", 1),)
    assert_graph(
        model,
        "g (float[n,2] x) => (float[n,2] y) <float[2,2] y_gemm_factors_weight = {2,4,6,8},"
        " float[2] y_gemm_factors_weight_1 = {0.5,-0.5}>"
        " { y = Gemm<transB = 1>(x, y_gemm_factors_weight, y_gemm_factors_weight_1) }",
    )


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("Gemm<beta = 0.0>(x, w, b)", 2),
        ("Gemm<alpha = -3.0>(x, w)", 2),
        ("Gemm<beta = -3.0>(x, w, b)", 3),
        ("Gemm(x, w, z)", 2),
        ("Gemm<beta = 7.0>(x, w, z)", 2),
    ],
)
def test_what_is_left_has_no_factors(node, inputs):
    model, _ = rewritten(graph(node, WEIGHTS + ", float[1] z = {0}"), RULES)
    assert operators(model) == ["Gemm"]
    made = next(iter(model.graph))
    assert len(made.inputs) == inputs
    assert not made.attributes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "g (float[n,2] x, float[2,2] v) => (float[n,2] y) { y = Gemm<alpha = 2.0>(x, v) }",
            "the matrix is no constant",
        ),
        (
            graph("Gemm<beta = 2.0>(x, w, c)", inputs="float[n,2] x, float[2] c"),
            "the bias is no constant",
        ),
        (
            graph("Gemm<beta = 0.0>(x, w, c)", inputs="float[n,2] x, float[2] c"),
            "the bias is no constant",
        ),
        (
            graph("Gemm<beta = 0.0>(x, w, c)", "float[2,2] w = {1,2,3,4}, float[2] c = {1,inf}"),
            "the bias is not finite",
        ),
        (
            graph("Gemm<alpha = 0.0>(x, w, b)"),
            "the factor 0.0 is 0, not finite, or of an extreme size",
        ),
        (
            "g (float[n,2] x) => (float[n,2] y, float[n,2] z) <float[2,2] w = {1,2,3,4}>"
            " { y = Gemm<alpha = 2.0>(x, w)  [other] z = MatMul(x, w) }",
            "the weight would be stored twice: 'w' is also read by 'other' (MatMul)",
        ),
        (
            "g (float16[n,2] x) => (float16[n,2] y) <float16[2,2] w = {1,2,3,4}>"
            " { y = Gemm<alpha = 3.0>(x, w) }",
            "a weight of type FLOAT16 would be rounded once more",
        ),
    ],
)
def test_a_factor_that_may_not_move_is_refused(text, reason):
    _, stats = rewritten(text, RULES)
    assert not stats.changed
    assert reasons(stats, "gemm-factors") == [reason]


@pytest.mark.parametrize(
    "text",
    [
        graph("Gemm(x, w, b)"),
        graph("Gemm<beta = 2.0>(x, w)"),
        # Zeros that make more rows of one.
        "g (float[1,2] x) => (float[3,2] y) <float[2,2] w = {1,2,3,4}, float[3,2] b ="
        " {0,0,0,0,0,0}> { p = MatMul(x, w)  y = Add(p, b) }",
    ],
)
def test_other_forms_are_left_alone(text):
    _, stats = rewritten(text, RULES)
    assert not stats.changed
    assert not stats.refused


def _drawn(draw: Draw) -> Pattern:
    random = np.random.default_rng(draw(st.integers(0, 99)))
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    turned = draw(st.booleans())
    pattern = Pattern()
    x = pattern.input(random.normal(size=(m, k)).astype(np.float32))
    weight = pattern.weight(random.normal(size=(n, k) if turned else (k, n)).astype(np.float32))
    shape = draw(st.sampled_from([(n,), (1, n), (), (m, n)]))
    scale = draw(st.sampled_from([0.0, 1.0]))
    bias = pattern.weight((random.normal(size=shape) * scale).astype(np.float32))
    factors = {name: draw(st.sampled_from([0.0, 0.5, 1.0, -2.0])) for name in ("alpha", "beta")}
    value = pattern.add("Gemm", x, weight, bias, transB=int(turned), **factors)
    pattern.add("Relu", value)
    return pattern


def test_outputs_stay_in_any_surrounding():
    assert times_fired(_drawn, RULES) >= 10
