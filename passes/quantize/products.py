"""Linear layers for ONNX Runtime: integer products with ranges found in each call, and blocks.

dynamic: q, s, z = DynamicQuantizeLinear(x), once for all the layers that read x;
    y = Cast(MatMulInteger(q, W, z)) * (s * scale) + bias, with a scale for each column of W.
    ONNX Runtime makes one node of it, with the bias. U8 times S8 is its fast form.
dynamic in blocks, weight-only: MatMulNBits, whose weights have a scale for each block of rows. It
    takes x in float, and rounds blocks of each row of x to 8 bits by itself (accuracy level 4).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.errors import PlanError
from leptonc.passes.graph.constants import constant
from leptonc.passes.graph.editing import take_over
from leptonc.passes.graph.insertion import Insertion
from leptonc.passes.quantize.layer_matrix import LayerMatrix
from leptonc.passes.quantize.plan import LayerChoice
from leptonc.passes.quantize.scales import RoundedWeight
from leptonc.passes.quantize.weights import rounded_weight

MICROSOFT = "com.microsoft"
# The block where the plan names none: of those that lose little accuracy the fastest.
DEFAULT_BLOCK = 128
# MatMulNBits computes with rows of x in 8 bits: FACTS of the engine, not of the format.
ACCURACY_LEVEL = 4

Array = np.ndarray[Any, Any]


class DynamicProducts:
    """Makes integer products, and shares the rounding of an input among those that read it."""

    def __init__(self, insert: Insertion) -> None:
        """Start with no input rounded."""
        self._insert = insert
        self._rounded: dict[ir.Value, tuple[ir.Value, ...]] = {}

    def rewrite(self, node: ir.Node, choice: LayerChoice) -> None:
        """Replace a MatMul or Gemm by a constant.

        Raises:
            PlanError: The weight cannot be rounded.
        """
        layout = LayerMatrix.of(node)
        rounded = rounded_weight(layout, choice)
        x, stem = node.inputs[0], choice.layer
        assert x is not None
        if x not in self._rounded:
            self._rounded[x] = self._insert.after(x).ops(
                "DynamicQuantizeLinear",
                [x],
                [f"{x.name}_quantized", f"{x.name}_scale", f"{x.name}_zero_point"],
            )
        quantized, scale, zero = self._rounded[x]
        insert = self._insert.before(node)
        weight = choice.note(insert.constant(rounded.values, f"{_weight_name(node)}_int8"))
        columns = insert.constant(rounded.scale[0] * _alpha(node), f"{_weight_name(node)}_scale")
        product = insert.op("MatMulInteger", [quantized, weight, zero], f"{stem}_integer")
        cast = insert.op("Cast", [product], f"{stem}_float", {"to": int(ir.DataType.FLOAT)})
        both = insert.op("Mul", [scale, columns], f"{stem}_scales")
        result = insert.op("Mul", [cast, both], f"{stem}_product")
        bias = _bias(node)
        if bias is not None:
            result = insert.op("Add", [result, _row(insert, node, bias)], f"{stem}_sum")
        take_over(node.outputs[0], result)


def rewrite_in_blocks(insert: Insertion, node: ir.Node, choice: LayerChoice) -> None:
    """Replace a MatMul or Gemm by a constant with MatMulNBits.

    Raises:
        PlanError: The weight cannot be rounded.
    """
    layout = LayerMatrix.of(node)
    block = choice.block or DEFAULT_BLOCK
    rounded = rounded_weight(layout, _with_block(choice, block))
    insert.before(node)
    name = _weight_name(node)
    rows, columns = rounded.values.shape
    integers = packed(rounded, choice.bits)
    weight = choice.note(insert.constant(integers, f"{name}_int{choice.bits}"))
    # [blocks, N] to one scale for each block of each column, column by column.
    scales = np.ascontiguousarray((rounded.scale * _alpha(node)).T).astype(np.float32)
    inputs = [node.inputs[0], weight, insert.constant(scales.reshape(-1), f"{name}_scales")]
    end, bias = node.outputs[0], _bias(node)
    if bias is not None and _is_row(bias, columns):
        inputs += [None, None, _row(insert, node, bias)]
        bias = None
    attributes = {"K": rows, "N": columns, "bits": choice.bits, "block_size": block}
    attributes["accuracy_level"] = ACCURACY_LEVEL
    result = insert.op(
        "MatMulNBits", inputs, f"{choice.layer}_blocks", attributes, domain=MICROSOFT
    )
    if bias is not None:
        result = insert.op("Add", [result, _row(insert, node, bias)], f"{choice.layer}_sum")
    take_over(end, result)


def packed(rounded: RoundedWeight, bits: int) -> Array:
    """Return integers as MatMulNBits stores them, uint8 `[N, blocks, block * bits / 8]`.

    They are stored without a sign, 0 as half the range; of two in a byte the first is the lower
    half; a last block that is not full is filled with 0.
    """
    rows, columns = rounded.values.shape
    block = rounded.block
    blocks = -(-rows // block)
    zero = 1 << (bits - 1)
    full = np.zeros((blocks * block, columns), dtype=np.int16)
    full[:rows] = rounded.values
    unsigned: Array = (full + zero).astype(np.uint8).T.reshape(columns, blocks, block)
    if bits == 4:
        unsigned = unsigned[..., 0::2] | (unsigned[..., 1::2] << 4)
    return np.ascontiguousarray(unsigned)


def _with_block(choice: LayerChoice, block: int) -> LayerChoice:
    if choice.rounded is not None and choice.block != block:
        raise PlanError(
            f"the rounded weight of the layer {choice.layer!r} names no block size",
            fix=f"round it and plan it with block={block}",
        )
    return replace(choice, block=block)


def _alpha(node: ir.Node) -> np.float32:
    return np.float32(node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0)


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None


def _is_row(bias: ir.Value, columns: int) -> bool:
    tensor = constant(bias)
    if tensor is None:
        return False
    shape = [int(size) for size in tensor.shape.numpy()]
    return tensor.size == columns and shape[-1:] == [columns]


def _row(insert: Insertion, node: ir.Node, bias: ir.Value) -> ir.Value:
    """Return the bias of a Gemm times its factor, as one dimension where it is a row."""
    beta = np.float32(node.attributes.get_float("beta", 1.0))
    tensor = constant(bias)
    if tensor is None:
        if beta == 1.0:
            return bias
        return insert.op(
            "Mul", [bias, insert.constant(np.array(beta), "beta")], f"{bias.name}_scaled"
        )
    array = np.asarray(tensor.numpy())
    columns = array.shape[-1] if array.ndim else 0
    flat = array.reshape(-1) if array.size == columns else array
    if beta == 1.0 and flat.shape == array.shape:
        return bias
    return insert.constant(np.asarray(flat * beta), f"{bias.name}_row")


def _weight_name(node: ir.Node) -> str:
    value = node.inputs[1]
    assert value is not None
    return str(value.name)
