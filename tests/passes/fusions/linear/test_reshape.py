"""Layers on flattened rows: which go back to MatMul, which do not, and that the outputs stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from linear_graphs import Draw, operators, reasons, rewritten, times_fired
from surroundings import Pattern

from leptonc.passes.fusions.linear.reshape import RULES

WEIGHTS = "float[2,3] w = {1,2,3,4,5,6}, float[3] b = {1,-1,2}, int64[2] rows = {-1,2}"


def graph(body: str, x: str = "n,4,2", y: str = "n,4,3", weights: str = WEIGHTS) -> str:
    return f"g (float[{x}] x) => (float[{y}] y) <{weights}> {{ {body} }}"


FLAT = "r = Reshape(x, rows)  g = Gemm(r, w, b)  "


def test_flattened_rows_go_back_to_matmul(assert_graph):
    back = ", int64[3] back = {-1,4,3}"
    model, stats = rewritten(graph(FLAT + "y = Reshape(g, back)", weights=WEIGHTS + back), RULES)
    assert stats.counts == (("reshape-gemm-reshape", 1),)
    assert_graph(
        model,
        "g (float[n,4,2] x) => (float[n,4,3] y)"
        " <float[2,3] w = {1,2,3,4,5,6}, float[3] b = {1,-1,2}>"
        " { y_reshape_gemm_reshape = MatMul(x, w)  y = Add(y_reshape_gemm_reshape, b) }",
    )


SIZES = "s = Shape<start = 0, end = 2>(x)  c = Concat<axis = 0>(s, three)  "


@pytest.mark.parametrize(
    ("body", "x", "back"),
    [
        (FLAT + "y = Reshape(g, back)", "5,4,2", "int64[3] back = {5,4,3}"),
        (FLAT + "y = Reshape(g, back)", "5,n,2", "int64[3] back = {5,-1,3}"),
        (FLAT + SIZES + "y = Reshape(g, c)", "n,m,2", "int64[1] three = {3}"),
        (
            "r = Reshape(x, rows)  p = MatMul(r, w)  g = Add(b, p)  y = Reshape(g, back)",
            "n,4,2",
            "int64[3] back = {-1,4,3}",
        ),
        (
            "r = Flatten<axis = 2>(x)  g = Gemm(r, w)  y = Reshape(g, back)",
            "n,4,2",
            "int64[3] back = {-1,4,3}",
        ),
        (
            "r = Reshape(x, rows)  g = Gemm<transB = 1>(r, t, b)  y = Reshape(g, back)",
            "n,4,2",
            "float[3,2] t = {1,4,2,5,3,6}, int64[3] back = {-1,4,3}",
        ),
    ],
)
def test_each_way_to_give_back_the_dimensions(body, x, back):
    model, stats = rewritten(graph(body, x, "n,m,3", f"{WEIGHTS}, {back}"), RULES)
    assert stats.counts == (("reshape-gemm-reshape", 1),)
    assert "Reshape" not in operators(model)
    assert "Gemm" not in operators(model)


HEADS = "float[4,4] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}, float[4] b = {1,2,3,4}"


@pytest.mark.parametrize(
    ("shape", "reshape"),
    [
        ("int64[3] back = {-1,3,4}", "Reshape(g, back)"),
        ("int64[3] back = {-1,3,4}", "Reshape<allowzero = 1>(g, back)"),
        ("int64[4] back = {5,1,3,4}", "Reshape(g, back)"),
    ],
)
def test_heads_are_joined_before_the_layer(shape, reshape):
    model, stats = rewritten(
        f"g (float[5,3,2,2] x) => (float[..] y) <{HEADS}, int64[2] rows = {{-1,4}}, {shape}>"
        f" {{ r = Reshape(x, rows)  g = Gemm(r, w, b)  y = {reshape} }}".replace(
            "float[..]", f"float[{','.join('abcd'[: 3 + ('[4]' in shape)])}]"
        ),
        RULES,
    )
    assert stats.counts == (("gemm-reshape", 1),)
    assert operators(model) == ["Reshape", "MatMul", "Add"]


@pytest.mark.parametrize(
    ("body", "x", "y", "weights", "reason"),
    [
        (
            FLAT + "y = Reshape(g, back)",
            "n,4,2",
            "n,2,3",
            "int64[3] back = {-1,2,3}",
            "the Reshape is not known to give back the dimensions of 'x'",
        ),
        (
            FLAT + "y = Reshape(g, back)",
            "n,4,2",
            "n,3",
            "int64[2] back = {-1,3}",
            "'y' is not known to be as 'x' with 3 columns",
        ),
        (
            FLAT + "y = Reshape(g, back)",
            "n,4,2",
            "n,3,4",
            "int64[3] back = {-1,3,4}",
            "'y' is not known to be as 'x' with 3 columns",
        ),
        (
            FLAT + "y = Reshape(g, back)",
            "2,2,4",
            "2,4,3",
            "int64[3] back = {-1,4,3}",
            "the last dimension of 'x' is not known to be 2",
        ),
        (
            FLAT + "y = Reshape(g, back)  [other] z = Neg(g)",
            "n,4,2",
            "n,4,3] y, float[m,3",
            "int64[3] back = {-1,4,3}",
            "'g' is also read by 'other' (Neg)",
        ),
        (
            "r = Reshape(x, rows)  g = Gemm<transB = 1>(r, t, b)  y = Reshape(g, back)"
            "  [other] z = MatMul(t, x)",
            "n,2,2",
            "n,2,3] y, float[n,3,2",
            "float[3,2] t = {1,4,2,5,3,6}, int64[3] back = {-1,2,3}",
            "the weight would be stored twice: 't' is also read by 'other' (MatMul)",
        ),
        (
            "r = Reshape(x, rows)  p = MatMul(r, w)  g = Add(p, deep)  y = Reshape(g, back)",
            "n,2",
            "n,3",
            "float[1,1,3] deep = {1,2,3}, int64[2] back = {-1,3}",
            None,
        ),
    ],
)
def test_a_layer_that_may_not_go_back_is_refused(body, x, y, weights, reason):
    text = graph(body, x, y, f"{WEIGHTS}, {weights}")
    if "[other]" in body:
        text = text.replace("] y) <", "] z) <")
    _, stats = rewritten(text, RULES)
    assert not stats.changed
    assert reasons(stats, "reshape-gemm-reshape") == ([] if reason is None else [reason])


@pytest.mark.parametrize(
    ("x", "body", "shape", "reason"),
    [
        (
            "1,4,2",
            "g = Gemm(r, w, b)  y = Reshape(g, back)",
            "int64[3] back = {0,1,4}",
            "the Reshape may copy dimensions of its input",
        ),
        (
            "2,4,2",
            "g = Gemm(r, w, b)  y = Reshape(g, back)",
            "int64[3] back = {-1,2,2}",
            "the last dimension of 'y' is not known to be 4",
        ),
        (
            "2,4,2",
            "g = Gemm(r, w3, b3)  y = Reshape(g, back)",
            "int64[3] back = {-1,2,3},"
            " float[4,3] w3 = {1,2,3,4,5,6,7,8,9,1,2,3}, float[3] b3 = {1,2,3}",
            "the Reshape of 3 columns is none of 4",
        ),
    ],
)
def test_heads_that_may_not_be_joined_before_are_refused(x, body, shape, reason):
    _, stats = rewritten(
        f"g (float[{x}] x) => (float[a,b,c] y) <{HEADS}, int64[2] rows = {{-1,4}}, {shape}>"
        f" {{ r = Reshape(x, rows)  {body} }}",
        RULES,
    )
    assert not stats.changed
    assert reasons(stats, "gemm-reshape") == [reason]


def _drawn(draw: Draw) -> Pattern:
    random = np.random.default_rng(draw(st.integers(0, 99)))
    a, b, k, n = (draw(st.integers(1, 3)) for _ in range(4))
    turned = draw(st.booleans())
    pattern = Pattern()
    x = pattern.input(random.normal(size=(a, b, k)).astype(np.float32))
    rows = pattern.add("Reshape", x, pattern.weight(np.array([-1, k])))
    weight = pattern.weight(random.normal(size=(n, k) if turned else (k, n)).astype(np.float32))
    bias = pattern.weight(random.normal(size=(n,)).astype(np.float32))
    product = pattern.add("Gemm", rows, weight, bias, transB=int(turned))
    shapes = [(a, b, n), (-1, b, n), (a, -1, n), (b, a, n), (a, n, b), (a * b, 1, n)]
    pattern.add("Reshape", product, pattern.weight(np.array(draw(st.sampled_from(shapes)))))
    return pattern


def test_outputs_stay_in_any_surrounding():
    assert times_fired(_drawn, RULES) >= 10
