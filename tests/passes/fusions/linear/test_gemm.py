"""Products of matrices become Gemm: which do, which do not, and that the outputs stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from linear_graphs import Draw, operators, reasons, rewritten, times_fired
from surroundings import Pattern

from leptonc.passes.fusions.linear.gemm import RULES

WEIGHTS = "<float[2,3] w = {1,2,3,4,5,6}, float[3] b = {1,-1,2}>"


def test_a_product_and_its_bias_become_gemm(assert_graph):
    model, stats = rewritten(
        f"g (float[n,2] x) => (float[n,3] y) {WEIGHTS} {{ p = MatMul(x, w)  y = Add(p, b) }}",
        RULES,
    )
    assert stats.counts == (("matmul-add-gemm", 1),)
    assert_graph(model, f"g (float[n,2] x) => (float[n,3] y) {WEIGHTS} {{ y = Gemm(x, w, b) }}")


@pytest.mark.parametrize("addend", ["b, p", "p, b"])
@pytest.mark.parametrize(
    "bias",
    [
        "float b = {2}",
        "float[1] b = {2}",
        "float[3] b = {1,-1,2}",
        "float[1,3] b = {1,-1,2}",
        "float[1,1] b = {2}",
        "float[4,3] b = {1,2,3,4,5,6,7,8,9,10,11,12}",
        "float[4,1] b = {1,2,3,4}",
    ],
)
def test_each_bias_that_fits_joins(bias, addend):
    model, _ = rewritten(
        f"g (float[4,2] x) => (float[4,3] y) <float[2,3] w = {{1,2,3,4,5,6}}, {bias}>"
        f" {{ p = MatMul(x, w)  y = Add({addend}) }}",
        RULES,
    )
    assert operators(model) == ["Gemm"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("t = Transpose<perm = [1, 0]>(x)  y = MatMul(t, z)", ("transA",)),
        ("t = Transpose(z)  y = MatMul(x, t)", ("transB",)),
        ("t = Transpose(x)  u = Transpose(z)  y = MatMul(t, u)", ("transA", "transB")),
        ("t = Transpose(x)  y = Gemm<alpha = 2.0>(t, z)", ("transA",)),
        ("t = Transpose(x)  y = Gemm<transA = 1>(t, z)", ()),
    ],
)
def test_a_transpose_of_a_matrix_becomes_an_attribute(body, expected):
    model, _ = rewritten(
        f"g (float[3,3] x, float[3,3] z) => (float[3,3] y) {{ {body} }}",
        RULES,
    )
    assert operators(model) == ["Gemm"]
    node = next(iter(model.graph))
    set_ones = tuple(name for name in ("transA", "transB") if node.attributes.get_int(name, 0))
    assert set_ones == expected


@pytest.mark.parametrize(
    ("gemm", "attributes"), [("Gemm", ""), ("Gemm<alpha = 0.5, transB = 1>", "alpha")]
)
def test_what_is_added_to_gemm_joins_it(gemm, attributes):
    model, _ = rewritten(
        "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}, float[2] b = {1,2}>"
        f" {{ p = {gemm}(x, w)  y = Add(b, p) }}",
        RULES,
    )
    assert operators(model) == ["Gemm"]
    assert attributes == "" or attributes in next(iter(model.graph)).attributes


def test_two_biases_become_one(assert_graph):
    model, _ = rewritten(
        "g (float[n,2] x) => (float[n,2] y)"
        " <float[2,2] w = {1,2,3,4}, float[2] b = {1,2}, float[1] c = {10}>"
        " { p = Gemm(x, w, b)  y = Add(p, c) }",
        RULES,
    )
    assert_graph(
        model,
        "g (float[n,2] x) => (float[n,2] y)"
        " <float[2,2] w = {1,2,3,4}, float[2] y_matmul_add_gemm_weight = {11,12}>"
        " { y = Gemm(x, w, y_matmul_add_gemm_weight) }",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "g (float[n,2] x, float[m,3] b) => (float[n,3] y) <float[2,3] w = {1,2,3,4,5,6}>"
            " { p = MatMul(x, w)  y = Add(p, b) }",
            "'b' is not known to broadcast to the product",
        ),
        (
            "g (float[1,2] x) => (float[2,1] y) <float[2,1] w = {1,2}, float[2,1] b = {1,2}>"
            " { p = MatMul(x, w)  y = Add(p, b) }",
            "'b' is not known to broadcast to the product",
        ),
        (
            "g (float[2,2] x) => (float[1,2,2] y)"
            " <float[2,2] w = {1,2,3,4}, float[1,1,2] b = {1,2}>"
            " { p = MatMul(x, w)  y = Add(p, b) }",
            "'b' is not known to broadcast to the product",
        ),
        (
            "g (float[2,2] x) => (float[2,2] y, float[2,2] p)"
            " <float[2,2] w = {1,2,3,4}, float[2] b = {1,2}>"
            " { p = MatMul(x, w)  y = Add(p, b) }",
            "'p' is an output of the graph",
        ),
        (
            "g (float[2,2] x) => (float[2,2] y, float[2,2] q)"
            " <float[2,2] w = {1,2,3,4}, float[2] b = {1,2}>"
            " { p = MatMul(x, w)  y = Add(p, b)  [other] q = Neg(p) }",
            "'p' is also read by 'other' (Neg)",
        ),
        (
            "g (int32[2,2] x) => (int32[2,2] y)"
            " <int32[2,2] w = {1,2,3,4}, int32[2] b = {1,2}>"
            " { p = MatMul(x, w)  y = Add(p, b) }",
            "'p' is no tensor of floating-point numbers",
        ),
        (
            "g (float[2,2] x, float[2] c) => (float[2,2] y)"
            " <float[2,2] w = {1,2,3,4}, float[2] b = {1,2}>"
            " { p = Gemm(x, w, b)  y = Add(p, c) }",
            "the Gemm has a bias already, 'b'",
        ),
        (
            "g (float[2,2] x) => (float[2,2] y)"
            " <float[2,2] w = {1,2,3,4}, float[2] b = {1,2}, float[2] c = {1,2}>"
            " { p = Gemm<beta = 2.0>(x, w, b)  y = Add(p, c) }",
            "the Gemm has a bias with a factor",
        ),
    ],
)
def test_a_sum_that_may_not_join_is_refused(text, reason):
    _, stats = rewritten(text, RULES)
    assert not stats.changed
    assert reasons(stats, "matmul-add-gemm") == [reason]


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2,3,2] x) => (float[2,3,2] y) <float[2,2] w = {1,2,3,4}, float[2] b = {1,2}>"
        " { p = MatMul(x, w)  y = Add(p, b) }",
        "g (float[2] x) => (float[2] y) <float[2,2] w = {1,2,3,4}, float[2] b = {1,2}>"
        " { p = MatMul(x, w)  y = Add(p, b) }",
        "g (float[2,2] x, float[2,2] w) => (float[2,2] y) { p = MatMul(x, w)  y = Add(p, p) }",
        "g (float[2,2,2] x, float[2,2,2] z) => (float[2,2,2] y)"
        " { t = Transpose<perm = [0, 2, 1]>(z)  y = MatMul(x, t) }",
        "g (float[2,2] x, float[2,2] z) => (float[2,2] y)"
        " { t = Transpose<perm = [0, 1]>(z)  y = MatMul(x, t) }",
    ],
)
def test_other_ranks_and_forms_are_left_alone(text):
    _, stats = rewritten(text, RULES)
    assert not stats.changed
    assert not stats.refused


def test_a_transpose_that_is_read_elsewhere_stays():
    _, stats = rewritten(
        "g (float[2,2] x, float[2,2] z) => (float[2,2] y, float[2,2] t)"
        " { t = Transpose(z)  y = MatMul(x, t) }",
        RULES,
    )
    assert reasons(stats, "transpose-gemm") == ["'t' is an output of the graph"]


def _drawn(draw: Draw) -> Pattern:
    dtype = draw(st.sampled_from([np.float32, np.float64, np.float32]))
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    pattern = Pattern()
    x = pattern.input(random.normal(size=(k, m)).astype(dtype))
    shape = draw(st.sampled_from([(n,), (1, n), (1,), (), (m, n), (m, 1)]))
    bias = pattern.weight(random.normal(size=shape).astype(dtype))
    weight = pattern.weight(random.normal(size=(k, n)).astype(dtype))
    turned = pattern.add("Transpose", x, perm=[1, 0])
    product = pattern.add(draw(st.sampled_from(["MatMul", "Gemm"])), turned, weight)
    operands = (product, bias) if draw(st.booleans()) else (bias, product)
    pattern.add("Relu", pattern.add("Add", *operands))
    return pattern


def test_outputs_stay_in_any_surrounding():
    assert times_fired(_drawn, RULES) >= 10
