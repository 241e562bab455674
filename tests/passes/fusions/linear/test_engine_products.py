"""ONNX Runtime's own products: what becomes one, what does not, and that the outputs stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from linear_graphs import Draw, operators, reasons, rewritten, times_fired
from surroundings import Pattern

from leptonc.passes.fusions.linear.engine_products import RULES


def graph(body: str, kind: str = "float") -> str:
    return (
        f"g ({kind}[n,3,3] x, {kind}[n,3,3] z) => ({kind}[n,3,3] y) <{kind} s = {{4}}> {{ {body} }}"
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("t = Transpose<perm = [0, 2, 1]>(z)  y = MatMul(x, t)", {"transB": 1}),
        ("t = Transpose<perm = [0, 2, 1]>(x)  y = MatMul(t, z)", {"transA": 1}),
        (
            "t = Transpose<perm = [0, 2, 1]>(x)  u = Transpose<perm = [0, 2, 1]>(z)"
            "  y = MatMul(t, u)",
            {"transA": 1, "transB": 1},
        ),
        ("p = MatMul(x, z)  y = Mul(p, s)", {"alpha": 4.0}),
        ("p = MatMul(x, z)  y = Mul(s, p)", {"alpha": 4.0}),
        ("p = MatMul(x, z)  y = Div(p, s)", {"alpha": 0.25}),
        ("a = Mul(x, s)  b = Mul(z, s)  y = MatMul(a, b)", {"alpha": 16.0}),
        (
            "t = Transpose<perm = [0, 2, 1]>(z)  p = MatMul(x, t)  y = Div(p, s)",
            {"transB": 1, "alpha": 0.25},
        ),
        (
            "t = Transpose<perm = [0, 2, 1]>(z)  p = com.microsoft.FusedMatMul<transB = 1>(x, t)"
            "  y = Div(p, s)",
            {"transB": 0, "alpha": 0.25},
        ),
    ],
)
@pytest.mark.parametrize("target", ["ort-cpu", "ort-cuda"])
def test_one_fused_product_is_left(body, expected, target):
    model, _ = rewritten(graph(body), RULES, target=target)
    assert operators(model) == ["FusedMatMul"]
    node = next(iter(model.graph))
    assert {attribute.name: attribute.value for attribute in node.attributes.values()} == expected


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("Relu", {}),
        ("Sigmoid", {}),
        ("Tanh", {}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("LeakyRelu", {"activation_alpha": 0.01}),
        ("LeakyRelu<alpha = 0.5>", {"activation_alpha": 0.5}),
        ("Elu", {"activation_alpha": 1.0}),
        ("Celu<alpha = 2.0>", {"activation_alpha": 2.0}),
        ("ThresholdedRelu", {"activation_alpha": 1.0}),
        ("HardSigmoid", {"activation_alpha": 0.2, "activation_beta": 0.5}),
    ],
)
def test_gemm_takes_an_activation(activation, expected):
    text = (
        "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,-2,3,-4}, float[2] b = {1,2}>"
        f" {{ p = Gemm<transB = 1>(x, w, b)  y = {activation}(p) }}"
    )
    model, _ = rewritten(text, RULES, target="ort-cpu")
    assert operators(model) == ["FusedGemm"]
    attributes = next(iter(model.graph)).attributes
    assert attributes.get_string("activation") == activation.split("<")[0]
    found = {name: attributes.get_float(name) for name in attributes if "activation_" in name}
    assert found == pytest.approx(expected)
    for target in ("generic", "primitive", "ort-cuda"):
        assert not rewritten(text, RULES, target=target)[1].changed


@pytest.mark.parametrize("target", ["generic", "primitive"])
def test_other_targets_keep_the_standard_operators(target):
    body = "t = Transpose<perm = [0, 2, 1]>(z)  p = MatMul(x, t)  y = Div(p, s)"
    assert not rewritten(graph(body), RULES, target=target)[1].changed


@pytest.mark.parametrize(
    ("text", "rule", "reason"),
    [
        (
            graph("p = MatMul(x, z)  y = Mul(p, s)", "double"),
            "fused-matmul-scale",
            "FusedMatMul takes no elements of type DOUBLE",
        ),
        (
            graph("t = Transpose<perm = [0, 2, 1]>(z)  y = MatMul(x, t)", "float16"),
            "fused-matmul-transpose",
            "FusedMatMul takes no elements of type FLOAT16",
        ),
        (
            "g (float[3] x, float[3,3] z) => (float[3] y) <float s = {4}>"
            " { p = MatMul(x, z)  y = Mul(p, s) }",
            "fused-matmul-scale",
            "FusedMatMul takes two and more dimensions",
        ),
        (
            graph("p = MatMul(x, z)  y = Mul(p, o)").replace("s = {4}", "o = {0}"),
            "fused-matmul-scale",
            "the factor 0.0 is 0, not finite, or of an extreme size",
        ),
        (
            graph("p = MatMul(x, z)  y = Div(p, o)").replace("s = {4}", "o = {0}"),
            "fused-matmul-scale",
            "the factor inf is 0, not finite, or of an extreme size",
        ),
        (
            graph("p = MatMul(x, z)  q = Mul(p, s)  [other] r = Neg(p)  y = Add(q, r)"),
            "fused-matmul-scale",
            "'p' is also read by 'other' (Neg)",
        ),
        (
            graph("a = Mul(x, s)  q = MatMul(a, z)  [other] r = Neg(a)  y = Add(q, r)"),
            "scale-fused-matmul",
            "'a' is also read by 'other' (Neg)",
        ),
        (
            graph(
                "t = Transpose<perm = [0, 2, 1]>(x)  q = MatMul(t, z)  [other] r = Neg(t)"
                "  y = Add(q, r)"
            ),
            "fused-matmul-transpose",
            "'t' is also read by 'other' (Neg)",
        ),
        (
            graph("a = Mul(x, s)  y = com.microsoft.FusedMatMul<transBatchA = 1>(a, z)").replace(
                "[n,", "[3,"
            ),
            "scale-fused-matmul",
            "its batch dimensions are transposed already",
        ),
        (
            "g (float[n,2] x) => (float[n,2] y, float[n,2] p) <float[2,2] w = {1,-2,3,-4}>"
            " { p = Gemm(x, w)  y = Relu(p) }",
            "gemm-activation",
            "'p' is an output of the graph",
        ),
        (
            "g (double[n,2] x) => (double[n,2] y) <double[2,2] w = {1,-2,3,-4}>"
            " { p = Gemm(x, w)  y = Relu(p) }",
            "gemm-activation",
            "FusedGemm takes no elements of type DOUBLE",
        ),
    ],
)
def test_a_product_that_may_not_be_fused_is_refused(text, rule, reason):
    _, stats = rewritten(text, RULES, target="ort-cpu")
    assert not stats.changed
    assert reasons(stats, rule) == [reason]


@pytest.mark.parametrize(
    "body",
    [
        "t = Transpose<perm = [1, 0, 2]>(z)  y = MatMul(x, t)",
        "p = MatMul(x, z)  y = Div(s, p)",
        "p = MatMul(x, z)  y = Add(p, s)",
        "p = MatMul(x, z)  y = Mul(p, x)",
    ],
)
def test_other_forms_are_left_alone(body):
    text = graph(body).replace("[n,", "[3,")
    _, stats = rewritten(text, RULES, target="ort-cpu")
    assert not stats.changed
    assert not stats.refused


def _drawn(draw: Draw) -> Pattern:
    random = np.random.default_rng(draw(st.integers(0, 99)))
    m, k, n = (draw(st.integers(1, 3)) for _ in range(3))
    batch = draw(st.sampled_from([(), (2,), (2, 1)]))
    pattern = Pattern()

    def operand(rows: int, columns: int) -> str:
        turned = draw(st.booleans())
        size = (*batch, columns, rows) if turned else (*batch, rows, columns)
        value = pattern.input(random.normal(size=size).astype(np.float32))
        rank = len(size)
        if turned:
            value = pattern.add("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])
        if draw(st.booleans()):
            value = pattern.add(draw(st.sampled_from(["Mul", "Div"])), value, factor())
        return value

    def factor() -> str:
        shape = draw(st.sampled_from([(), (1,), (1, 1, 1, 1)]))
        return pattern.weight(np.full(shape, draw(st.sampled_from([0.5, -3.0, 0.0])), np.float32))

    value = pattern.add("MatMul", operand(m, k), operand(k, n))
    pattern.add(draw(st.sampled_from(["Mul", "Div", "Add"])), value, factor())
    return pattern


def test_outputs_stay_in_any_surrounding():
    assert times_fired(_drawn, RULES, target="ort-cpu") >= 10
