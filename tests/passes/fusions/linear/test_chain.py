"""Layers that feed layers: which become one, which do not, and that the outputs stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from linear_graphs import Draw, operators, reasons, rewritten, times_fired
from surroundings import Pattern

from leptonc.passes.fusions.linear import chain as linear_chain
from leptonc.passes.fusions.linear.chain import RULES

SQUARE = (
    "float[2,2] w = {1,2,3,4}, float[2,2] v = {1,0,2,1}, float[2] b = {1,-1}, float[2] c = {5,7}"
)


def graph(body: str, weights: str = SQUARE, outputs: str = "float[n,3,k] y") -> str:
    return f"g (float[n,3,2] x) => ({outputs}) <{weights}> {{ {body} }}"


def test_two_products_become_one(assert_graph):
    model, stats = rewritten(graph("p = MatMul(x, w)  y = MatMul(p, v)"), RULES)
    assert stats.counts == (("linear-chain", 1),)
    assert_graph(
        model,
        "g (float[n,3,2] x) => (float[n,3,k] y) <float[2,2] y_linear_chain_weight = {5,2,11,4}>"
        " { y = MatMul(x, y_linear_chain_weight) }",
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("p = MatMul(x, w)  a = Add(p, b)  y = MatMul(a, v)", ["MatMul", "Add"]),
        ("p = MatMul(x, w)  q = MatMul(p, v)  y = Add(c, q)", ["MatMul", "Add"]),
        ("p = MatMul(x, w)  a = Add(b, p)  q = MatMul(a, v)  y = Add(q, c)", ["MatMul", "Add"]),
        ("a = Add(x, b)  q = MatMul(a, v)  y = Add(q, c)", ["MatMul", "Add"]),
        ("p = MatMul(x, w)  q = MatMul(p, v)  y = MatMul(q, u)", ["MatMul"]),
    ],
)
def test_fewer_nodes_are_left(body, expected):
    model, _ = rewritten(graph(body, SQUARE + ", float[2,2] u = {1,1,0,1}"), RULES)
    assert operators(model) == expected


@pytest.mark.parametrize("first", ["MatMul(x, w)", "Gemm(x, w, b)", "Gemm<transB = 1>(x, w, b)"])
@pytest.mark.parametrize("second", ["Gemm(p, v, c)", "Gemm<transB = 1>(p, v)"])
def test_gemm_is_a_layer_too(first, second):
    model, _ = rewritten(
        f"g (float[n,2] x) => (float[n,2] y) <{SQUARE}> {{ p = {first}  y = {second} }}", RULES
    )
    assert operators(model) == ["Gemm"]


def test_a_bias_joins_that_of_a_gemm():
    model, _ = rewritten(
        f"g (float[n,2] x) => (float[n,2] y) <{SQUARE}> {{ p = Add(x, b)  y = Gemm(p, v) }}", RULES
    )
    assert operators(model) == ["Gemm"]


def test_thin_matrices_stay_and_their_biases_join():
    thin = "float[2,1] w = {1,2}, float[1] b = {3}, float[1,3] v = {1,2,3}, float[3] c = {1,1,2}"
    model, stats = rewritten(
        graph("p = MatMul(x, w)  a = Add(p, b)  q = MatMul(a, v)  y = Add(q, c)", thin), RULES
    )
    assert operators(model) == ["MatMul", "MatMul", "Add"]
    assert reasons(stats, "linear-chain") == [
        "one product of 2 by 3 costs more than 2 by 1 and 1 by 3"
    ]


@pytest.mark.parametrize(
    ("body", "rule", "reason"),
    [
        (
            "p = MatMul(x, w)  y = MatMul(p, v)  [other] z = Neg(p)",
            "linear-chain",
            "'p' is also read by 'other' (Neg)",
        ),
        (
            "p = MatMul(x, w)  a = Add(p, b)  y = MatMul(a, v)  [other] z = Neg(p)",
            "linear-chain",
            "'p' is also read by 'other' (Neg)",
        ),
        (
            "p = MatMul(x, w)  y = MatMul(p, v)  [other] z = MatMul(x, v)",
            "linear-chain",
            "the weight would be stored twice: 'v' is also read by 'other' (MatMul)",
        ),
        (
            "p = MatMul(x, w)  y = MatMul(p, v)  [other] z = MatMul(w, x)",
            "linear-chain",
            "the weight would be stored twice: 'w' is also read by 'other' (MatMul)",
        ),
        (
            "a = Add(x, b)  q = MatMul(a, v)  y = Add(q, c)  [other] z = Neg(a)",
            "bias-linear",
            "'a' is also read by 'other' (Neg)",
        ),
        (
            "a = Add(x, b)  q = MatMul(a, v)  y = Add(q, c)  [other] z = Neg(q)",
            "bias-linear",
            "'q' is also read by 'other' (Neg)",
        ),
    ],
)
def test_a_layer_that_is_read_elsewhere_stays(body, rule, reason):
    text = f"g (float[2,2,2] x) => (float[n,m,k] y, float[n,m,l] z) <{SQUARE}> {{ {body} }}"
    _, stats = rewritten(text, RULES)
    assert not stats.changed
    assert reasons(stats, rule) == [reason]


def test_a_bias_that_widens_its_input_stays():
    _, stats = rewritten(
        "g (float[n,1] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}, float[2] b = {1,2}>"
        " { a = Add(x, b)  y = Gemm(a, w) }",
        RULES,
    )
    assert reasons(stats, "bias-linear") == ["'x' may be widened by the constant"]


@pytest.mark.parametrize("most", [7, 8])
def test_a_product_that_takes_too_long_is_not_made(monkeypatch, most):
    monkeypatch.setattr(linear_chain, "_MOST_PRODUCTS", most)
    model, stats = rewritten(graph("p = MatMul(x, w)  y = MatMul(p, v)"), RULES)
    assert len(operators(model)) == (1 if most == 8 else 2)
    assert reasons(stats, "linear-chain") == (
        [] if most == 8 else ["the product of weights of 2 by 2 and 2 by 2 would take too long"]
    )


@pytest.mark.parametrize("rule", ["linear-chain", "bias-linear"])
def test_half_precision_is_left_alone(rule):
    first = "p = Gemm(x, w)" if rule == "linear-chain" else "p = Add(x, b)"
    _, stats = rewritten(
        "g (float16[n,2] x) => (float16[n,2] y)"
        " <float16[2,2] w = {1,2,3,4}, float16[2,2] v = {1,2,3,5}, float16[2] b = {1,2}>"
        f" {{ {first}  y = Gemm(p, v) }}",
        RULES,
    )
    assert len(reasons(stats, rule)) == 1
    assert reasons(stats, rule)[0].endswith("of type FLOAT16 would be rounded once more")


@pytest.mark.parametrize(
    "body",
    [
        "p = MatMul(x, w)  r = Relu(p)  y = MatMul(r, v)",
        "a = Add(x, b)  y = MatMul(a, w)",
        "p = MatMul(x, w)  y = MatMul(p, u)",
    ],
)
def test_other_forms_are_left_alone(body):
    weights = SQUARE + ", float[2,2] u = {1,2,3,4}"
    text = f"g (float[2,3,2] x, float[2,2] u) => (float[n,m,k] y) <{weights}> {{ {body} }}"
    _, stats = rewritten(text, RULES)
    assert not stats.changed
    assert not stats.refused


def _drawn(draw: Draw) -> Pattern:
    random = np.random.default_rng(draw(st.integers(0, 99)))
    k, m, n = (draw(st.integers(1, 4)) for _ in range(3))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    flat = draw(st.booleans())
    pattern = Pattern()
    value = pattern.input(random.normal(size=(3, k) if flat else (2, 3, k)).astype(dtype))

    def row(size: int) -> str:
        shape = draw(st.sampled_from([(size,), (1, size), (1,), ()]))
        return pattern.weight(random.normal(size=shape).astype(dtype))

    for rows, columns in ((k, m), (m, n)):
        if draw(st.booleans()):
            value = pattern.add("Add", value, row(rows))
        weight = pattern.weight(random.normal(size=(rows, columns)).astype(dtype))
        if flat and draw(st.booleans()):
            value = pattern.add("Gemm", value, weight, row(columns))
            continue
        value = pattern.add("MatMul", value, weight)
        if draw(st.booleans()):
            value = pattern.add("Add", row(columns), value)
    return pattern


def test_outputs_stay_in_any_surrounding():
    assert times_fired(_drawn, RULES) >= 10
