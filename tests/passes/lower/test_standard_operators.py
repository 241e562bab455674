"""ONNX Runtime's own operators, written in those of the standard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leptonc.passes.lower.standard_operators import STANDARD_OPERATORS
from leptonc.passes.pipeline import run_passes

HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>\n'
VECTORS = "float[2,3,8] x, float[2,3,8] s, float[8] g, float[8] h, float[8] b"


def one(signature: str, body: str, outputs: str = "float[2,3,8] y") -> str:
    return f"{HEAD} g ({signature}) => ({outputs}) {{ {body} }}"


ROWS = [
    (one(VECTORS, "y = com.microsoft.BiasGelu(x, b)"), ["Add", "Gelu"]),
    (one(VECTORS, "y = com.microsoft.FastGelu(x, b)"), ["Add", "Gelu"]),
    (one(VECTORS, "y = com.microsoft.FastGelu(x)"), ["Gelu"]),
    (one(VECTORS, "y = com.microsoft.QuickGelu<alpha = 1.5>(x)"), ["Mul", "Sigmoid", "Mul"]),
    (one(VECTORS, "y = com.microsoft.QuickGelu(x)"), ["Mul", "Sigmoid", "Mul"]),
    (
        one(VECTORS, "y = com.microsoft.SkipLayerNormalization<epsilon = 0.01>(x, s, g, h, b)"),
        ["Add", "Add", "LayerNormalization"],
    ),
    (
        one(VECTORS, "y = com.microsoft.SkipLayerNormalization(x, s, g)"),
        ["Add", "LayerNormalization"],
    ),
    (
        one(
            VECTORS,
            "y, m, v, t = com.microsoft.SkipLayerNormalization<epsilon = 0.01>(x, s, g, h)",
            "float[2,3,8] y, float[2,3,8] t",
        ),
        ["Add", "LayerNormalization"],
    ),
    (
        one(
            "float[2,4,3] x, float[2,5,4] s",
            "y = com.microsoft.FusedMatMul<alpha = 0.5, transA = 1, transB = 1>(x, s)",
            "float[2,3,5] y",
        ),
        ["Transpose", "Transpose", "MatMul", "Mul"],
    ),
    (
        one("float[2,4] x, float[4,5] s", "y = com.microsoft.FusedMatMul(x, s)", "float[2,5] y"),
        ["MatMul"],
    ),
    *(
        (
            one(
                "float[1,2,4,4] x, float[3,2,3,3] w, float[3] b, float[1,3,4,4] z",
                f"y = com.microsoft.FusedConv <pads = [1,1,1,1], {activation}> ({inputs})",
                "float[1,3,4,4] y",
            ),
            operators,
        )
        for inputs, activation, operators in (
            ("x, w", 'activation = "Relu"', ["Conv", "Relu"]),
            ("x, w, b, z", 'activation = "Relu"', ["Conv", "Add", "Relu"]),
            (
                "x, w, b",
                'activation = "LeakyRelu", activation_params = [0.3]',
                ["Conv", "LeakyRelu"],
            ),
            (
                "x, w, b",
                'activation = "Clip", activation_params = [-0.2, 0.3]',
                ["Conv", "Clip"],
            ),
            (
                "x, w",
                'activation = "HardSigmoid", activation_params = [0.3, 0.4]',
                ["Conv", "HardSigmoid"],
            ),
        )
    ),
    (
        one(
            "float[2,4] x, float[5,4] w, float[5] b",
            'y = com.microsoft.FusedGemm <transB = 1, activation = "LeakyRelu", '
            "activation_alpha = 0.3> (x, w, b)",
            "float[2,5] y",
        ),
        ["Gemm", "LeakyRelu"],
    ),
]


def feeds(model):
    generator = np.random.default_rng(0)
    return {
        value.name: generator.standard_normal(value.shape.numpy()).astype(np.float32)
        for value in model.graph.inputs
    }


@pytest.mark.parametrize(
    ("text", "operators"), ROWS, ids=[row[0].split("com.microsoft")[-1] for row in ROWS]
)
def test_it_computes_the_same(parse, run, text, operators):
    model = parse(text)
    arrays = feeds(model)
    before = run(model, arrays)
    run_passes(model, (STANDARD_OPERATORS,))
    assert [node.op_type for node in model.graph] == operators
    assert {node.domain for node in model.graph} == {""}
    for found, wanted in zip(run(model, arrays), before, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-3 if "Fast" in text else 1e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            one(
                "float[2,3,4] x, float[2,4,5] s",
                "y = com.microsoft.FusedMatMul<transBatchA = 1>(x, s)",
                "float[p,q,r] y",
            ),
            "it transposes its batch axes",
        ),
        (
            one(
                VECTORS,
                "y, m = com.microsoft.SkipLayerNormalization(x, s, g)",
                "float[2,3,8] y, float[2,3,1] m",
            ),
            "its statistics ('m') are read",
        ),
    ],
)
def test_what_has_no_plain_form_stays_with_a_reason(parse, text, reason):
    model = parse(text)
    stats = run_passes(model, (STANDARD_OPERATORS,))[0]
    assert [refusal.reason for refusal in stats.refused] == [reason]
    assert stats.changed == 0


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batch=st.lists(st.integers(1, 3), max_size=2),
    sizes=st.tuples(*[st.integers(1, 4)] * 3),
    left=st.booleans(),
    right=st.booleans(),
    alpha=st.sampled_from([1.0, 0.25, -2.0]),
)
def test_products_of_any_shape_keep_their_values(parse, run, batch, sizes, left, right, alpha):
    rows, inner, columns = sizes
    a = [*batch, *((inner, rows) if left else (rows, inner))]
    b = [*batch, *((columns, inner) if right else (inner, columns))]
    c = [*batch, rows, columns]
    a_text, b_text, c_text = (",".join(map(str, each)) for each in (a, b, c))
    attributes = f"alpha = {alpha:.2f}, transA = {int(left)}, transB = {int(right)}"
    model = parse(
        one(
            f"float[{a_text}] x, float[{b_text}] s",
            f"y = com.microsoft.FusedMatMul<{attributes}>(x, s)",
            f"float[{c_text}] y",
        )
    )
    arrays = feeds(model)
    before = run(model, arrays)[0]
    run_passes(model, (STANDARD_OPERATORS,))
    assert {node.domain for node in model.graph} == {""}
    np.testing.assert_allclose(run(model, arrays)[0], before, atol=1e-4)
