"""Factors go into weights: which do, which do not, and that the outputs stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from linear_graphs import Draw, operators, reasons, rewritten, times_fired
from surroundings import Pattern

from leptonc.passes.fusions.linear.scale import RULES

WEIGHTS = "float[2,2] w = {1,2,3,4}, float[2] b = {1,-1}"


def graph(body: str, *, weights: str = WEIGHTS, x: str = "n,3,2", y: str = "n,3,2") -> str:
    return f"g (float[{x}] x) => (float[{y}] y) <{weights}> {{ {body} }}"


def test_a_number_goes_into_the_weight_and_the_bias(assert_graph):
    model, stats = rewritten(
        graph(
            "p = MatMul(x, w)  a = Add(p, b)  y = Mul(a, s)", weights=WEIGHTS + ", float s = {2}"
        ),
        RULES,
    )
    assert stats.counts == (("linear-scale", 1),)
    assert_graph(
        model,
        "g (float[n,3,2] x) => (float[n,3,2] y) <float[2,2] y_linear_scale_weight = {2,4,6,8},"
        " float[2] y_linear_scale_weight_1 = {2,-2}> { y_linear_scale ="
        " MatMul(x, y_linear_scale_weight)"
        " y = Add(y_linear_scale, y_linear_scale_weight_1) }",
    )


@pytest.mark.parametrize(
    ("body", "factor", "expected"),
    [
        ("p = MatMul(x, w)  y = Mul(p, s)", "float s = {0.5}", ["MatMul"]),
        ("p = MatMul(x, w)  y = Mul(s, p)", "float[1] s = {0.5}", ["MatMul"]),
        ("p = MatMul(x, w)  y = Div(p, s)", "float[1,1,1] s = {-8}", ["MatMul"]),
        ("p = MatMul(x, w)  y = Mul(p, s)", "float[2] s = {0.5, 3}", ["MatMul"]),
        ("p = MatMul(x, w)  y = Div(p, s)", "float[1,2] s = {0.5, 3}", ["MatMul"]),
        (
            "p = MatMul(x, w)  a = Add(b, p)  y = Mul(a, s)",
            "float[2] s = {3, 5}",
            ["MatMul", "Add"],
        ),
        ("a = Mul(x, s)  y = MatMul(a, w)", "float s = {0.5}", ["MatMul"]),
        ("a = Mul(s, x)  y = MatMul(a, w)", "float[2] s = {0.5, 3}", ["MatMul"]),
        ("a = Div(x, s)  y = MatMul(a, w)", "float[1,1,2] s = {0.5, 3}", ["MatMul"]),
        (
            "p = MatMul(x, w)  t = Transpose<perm = [0, 2, 1]>(p)  u = Transpose<perm = [0, 2, 1]>(t)"
            "  y = Mul(u, s)",
            "float s = {0.125}",
            ["MatMul", "Transpose", "Transpose"],
        ),
        (
            "p = MatMul(x, w)  t = Transpose<perm = [0, 2, 1]>(p)  q = MatMul(t, x)"
            "  h = Div(q, s)  y = MatMul(x, h)",
            "float s = {8}",
            ["MatMul", "Transpose", "MatMul", "MatMul"],
        ),
        (
            "p = MatMul(x, w)  t = Transpose<perm = [0, 2, 1]>(p)  r = Relu(t)  q = MatMul(x, r)"
            "  v = MatMul(x, w2)  z = MatMul(q, v)  y = Mul(z, s)",
            "float s = {8}, float[2,2] w2 = {1,1,1,2}",
            ["MatMul", "Transpose", "Relu", "MatMul", "MatMul", "MatMul"],
        ),
    ],
)
def test_the_factor_is_gone(body, factor, expected):
    model, _ = rewritten(graph(body, weights=f"{WEIGHTS}, {factor}"), RULES)
    assert sorted(operators(model)) == sorted(expected)


@pytest.mark.parametrize("turned", ["", "<transB = 1>"])
@pytest.mark.parametrize("factor", ["float s = {3}", "float[2] s = {3, 5}"])
@pytest.mark.parametrize(
    "body", ["a = Mul(x, s)  y = Gemm{t}(a, w, b)", "a = Gemm{t}(x, w, b)  y = Mul(a, s)"]
)
def test_gemm_takes_factors_too(body, factor, turned):
    model, _ = rewritten(
        graph(body.replace("{t}", turned), weights=f"{WEIGHTS}, {factor}", x="n,2", y="n,2"), RULES
    )
    assert operators(model) == ["Gemm"]


def test_one_scaled_input_of_two_layers_goes_into_both():
    model, stats = rewritten(
        "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}, float[2,2] v = {1,2,3,5},"
        " float[2] s = {2,3}> { a = Mul(x, s)  p = MatMul(a, w)  q = MatMul(a, v)  y = Add(p, q) }",
        RULES,
    )
    assert stats.counts == (("scale-linear", 2),)
    assert operators(model) == ["MatMul", "MatMul", "Add"]


SCALED = "p = MatMul(x, w)  y = Mul(p, s)"


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        *(
            (
                SCALED,
                f"{WEIGHTS}, float s = {{{number}}}",
                "'s' is 0, not finite, or of an extreme size",
            )
            for number in ("0", "1e20", "1e-20", "inf", "nan")
        ),
        (
            "p = MatMul(x, w)  y = Mul(p, s)  [other] z = Neg(p)",
            WEIGHTS + ", float s = {2}",
            "'p' is also read by 'other' (Neg)",
        ),
        (
            "p = MatMul(x, w)  a = Add(p, b)  y = Mul(a, s)  [other] z = Neg(p)",
            WEIGHTS + ", float s = {2}",
            "'p' is also read by 'other' (Neg)",
        ),
        (
            "p = MatMul(x, w)  y = Mul(p, s)  [other] z = MatMul(x, w)",
            WEIGHTS + ", float s = {2}",
            "the weight would be stored twice: 'w' is also read by 'other' (MatMul)",
        ),
        (
            "p = MatMul(x, w)  t = Transpose<perm = [0, 2, 1]>(p)  y = Mul(t, s)  [other] z = Neg(t)",
            WEIGHTS + ", float s = {2}",
            "'t' is also read by 'other' (Neg)",
        ),
    ],
)
def test_a_factor_that_may_not_move_is_refused(body, weights, reason):
    outputs = "float[n,m,k] y, float[n,m,l] z" if "z =" in body else "float[n,m,k] y"
    _, stats = rewritten(f"g (float[2,2,2] x) => ({outputs}) <{weights}> {{ {body} }}", RULES)
    assert not stats.changed
    assert reasons(stats, "linear-scale") == [reason]


@pytest.mark.parametrize(
    ("end", "outputs", "reason"),
    [
        ("", ", float[n,2] a", "'a' is an output of the graph"),
        ("  [other] z = Neg(a)", ", float[n,2] z", "'a' is also read by 'other'"),
        ("  [other] z = MatMul(a, x2)", ", float[n,2] z", "'a' is also read by 'other'"),
    ],
)
def test_a_scaled_input_that_is_read_elsewhere_stays(end, outputs, reason):
    _, stats = rewritten(
        f"g (float[n,2] x, float[2,2] x2) => (float[n,2] y{outputs}) <float[2,2] w = {{1,2,3,4}},"
        f" float s = {{2}}> {{ a = Mul(x, s)  y = MatMul(a, w){end} }}",
        RULES,
    )
    assert not stats.changed
    assert reasons(stats, "scale-linear") == [reason]


def test_half_precision_is_left_alone():
    _, stats = rewritten(
        "g (float16[n,2] x) => (float16[n,2] y) <float16[2,2] w = {1,2,3,4}, float16 s = {3}>"
        " { p = MatMul(x, w)  y = Mul(p, s) }",
        RULES,
    )
    assert reasons(stats, "linear-scale") == ["a weight of type FLOAT16 would be rounded once more"]


@pytest.mark.parametrize(
    "text",
    [
        # A factor that is an input as well, one with more dimensions, one per row, a divided one.
        "g (float[2,2] x, float s) => (float[2,2] y)"
        " <float[2,2] w = {1,2,3,4}, float s = {2}> { p = MatMul(x, w)  y = Mul(p, s) }",
        "g (float[2,2] x) => (float[1,2,2] y) <float[2,2] w = {1,2,3,4}, float[1,1,1] s = {2}>"
        " { p = MatMul(x, w)  y = Mul(p, s) }",
        "g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1,2,3,4}, float[2,1] s = {2,3}>"
        " { p = MatMul(x, w)  y = Mul(p, s) }",
        "g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1,2,3,4}, float s = {2}>"
        " { p = MatMul(x, w)  y = Div(s, p) }",
    ],
)
def test_other_forms_are_left_alone(text):
    _, stats = rewritten(text, RULES)
    assert not stats.changed
    assert not stats.refused


def test_a_factor_that_widens_its_input_stays():
    _, stats = rewritten(
        "g (float[2,1] x) => (float[2,2] y) <float[3,2] v = {1,2,3,4,5,6}, float[3] s = {2,3,4}>"
        " { a = Mul(x, s)  y = MatMul(a, v) }",
        RULES,
    )
    assert reasons(stats, "scale-linear") == ["'x' may be widened by the factor"]


def test_primitive_keeps_the_scale_at_the_scores():
    text = graph(
        "p = MatMul(x, w)  t = Transpose<perm = [0, 2, 1]>(x)  q = MatMul(p, t)  y = Mul(q, s)",
        weights=WEIGHTS + ", float s = {2}",
        y="n,3,3",
    )
    _, stats = rewritten(text, RULES, target="primitive")
    assert reasons(stats, "linear-scale") == ["the engine looks for the factor at the scores"]
    assert rewritten(text, RULES)[1].changed == 1


def _drawn(draw: Draw) -> Pattern:
    random = np.random.default_rng(draw(st.integers(0, 99)))
    b, s, k, n = (draw(st.integers(1, 3)) for _ in range(4))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    pattern = Pattern()

    def factor(size: int) -> str:
        shape = draw(st.sampled_from([(), (), (1,), (size,), (1, size), (s, 1), (1, 1, 1, 1)]))
        values = draw(st.sampled_from([0.125, 3.0, -2.0, 0.5, 7.0, 0.0]))
        return pattern.weight((np.ones(shape) * values).astype(dtype))

    value = pattern.input(random.normal(size=(b, s, k)).astype(dtype))
    if draw(st.booleans()):
        value = pattern.add(draw(st.sampled_from(["Mul", "Div"])), value, factor(k))
    value = pattern.add("MatMul", value, pattern.weight(random.normal(size=(k, n)).astype(dtype)))
    if draw(st.booleans()):
        value = pattern.add("Add", value, pattern.weight(random.normal(size=n).astype(dtype)))
    if draw(st.booleans()):
        value = pattern.add("Identity", value)
    pattern.add(draw(st.sampled_from(["Mul", "Div"])), value, factor(n))
    return pattern


def test_outputs_stay_in_any_surrounding():
    assert times_fired(_drawn, RULES) >= 5
