"""Attention that is joined with the layer it reads, and taken off it again for integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from text_graphs import weight

from leptonc.passes.fusions.attention.fuse import LOWER_ATTENTION, SPLIT_ATTENTION
from leptonc.passes.pipeline import Context, run_passes
from leptonc.passes.quantize.plan import find_layers

HEAD = '<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
ORT = Context("ort-cpu")
FORMS = [
    ("num_heads = 2", "x, w, b", 24),
    ("num_heads = 2", "x, w, b, keep", 24),
    ("num_heads = 2", "x, w, b, ,, added", 24),
    ("num_heads = 2, scale = 0.3, mask_filter_value = -100.0", "x, w, b, keep", 24),
    ("num_heads = 2, unidirectional = 1", "x, w, b", 24),
    ("num_heads = 2, qkv_hidden_sizes = [8, 8, 4]", "x, w, b", 20),
]


def graph(parse, attributes: str, inputs: str, columns: int, opset: int = 20) -> ir.Model:
    width = 4 if columns == 20 else 8
    generator = np.random.default_rng(1)
    model = parse(
        HEAD.format(opset=opset) + f"g (float[2,5,8] x, int32[2,5] keep, float[2,2,5,5] added)"
        f" => (float[2,5,{width}] y)\n"
        f"{{ y = com.microsoft.Attention <{attributes}> ({inputs}) }}"
    )
    for name, shape in (("w", (8, columns)), ("b", (columns,))):
        weight(model, name, generator.standard_normal(shape).astype(np.float32))
    return model


def feeds() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "x": generator.standard_normal((2, 5, 8)).astype(np.float32),
        "keep": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32),
        "added": generator.standard_normal((2, 2, 5, 5)).astype(np.float32),
    }


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize(("attributes", "inputs", "columns"), FORMS)
def test_it_comes_apart_and_computes_the_same(parse, run, attributes, inputs, columns, opset):
    model = graph(parse, attributes, inputs, columns, opset)
    (before,) = run(model, feeds())
    assert find_layers(model) == ()
    run_passes(model, (SPLIT_ATTENTION,), ORT)
    operators = [node.op_type for node in model.graph]
    assert operators == ["MatMul", "Add", "Split", "MultiHeadAttention"]
    assert [layer.operator for layer in find_layers(model)] == ["MatMul"]
    np.testing.assert_allclose(run(model, feeds())[0], before, atol=1e-5)


@pytest.mark.parametrize(("attributes", "inputs", "columns"), FORMS)
def test_what_came_apart_is_joined_again(parse, run, attributes, inputs, columns):
    model = graph(parse, attributes, inputs, columns)
    (before,) = run(model, feeds())
    run_passes(model, (SPLIT_ATTENTION, LOWER_ATTENTION), ORT)
    assert [node.op_type for node in model.graph] == ["Attention"]
    np.testing.assert_allclose(run(model, feeds())[0], before, atol=1e-5)


@pytest.mark.parametrize(
    ("attributes", "inputs", "reason"),
    [
        ("num_heads = 2, do_rotary = 1", "x, w, b", "MultiHeadAttention has no do_rotary"),
        ("num_heads = 2", "x, w, b, , past", "it has a past"),
    ],
)
def test_near_misses_are_said(parse, attributes, inputs, reason):
    model = parse(
        HEAD.format(opset=20) + "g (float[2,5,8] x, float[2,2,2,3,4] past) => (float[2,5,8] y)\n"
        f"{{ y = com.microsoft.Attention <{attributes}> ({inputs}) }}"
    )
    for name, shape in (("w", (8, 24)), ("b", (24,))):
        weight(model, name, np.ones(shape, np.float32))
    (stats,) = run_passes(model, (SPLIT_ATTENTION,), ORT)
    assert [refusal.reason for refusal in stats.refused] == [reason]
