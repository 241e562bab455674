"""Small graphs that the tests of the TensorRT backend share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir

from leptonc.backends import parse_target
from leptonc.backends.base import DimRange, Target
from leptonc.backends.tensorrt.options import TensorRTOptions

HEADER = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1, "acme" : 1]>\n'
BATCH = {"batch": DimRange(1, 2, 8)}


def graph(text: str) -> ir.Model:
    """Return the model that `text` spells; each node is named after its first output."""
    model = ir.from_proto(onnx.parser.parse_model(HEADER + text))
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def target(precision: str = "fp32", **options: object) -> Target:
    """Return a target of the flavour that builds here."""
    chosen = TensorRTOptions(**{"flavour": "rtx", "sm": ("86", "89"), **options})
    return replace(parse_target("tensorrt", precision=precision), options=chosen, profiles=(BATCH,))


def linear(dtype: str = "float") -> ir.Model:
    """Return Relu(x @ w + b) with seeded weights."""
    model = graph(
        f"g ({dtype}[batch,16] x, {dtype}[16,8] w, {dtype}[8] b) => ({dtype}[batch,8] y)"
        "{ h = MatMul(x, w)  s = Add(h, b)  y = Relu(s) }"
    )
    generator = np.random.default_rng(0)
    for value, shape in zip(list(model.graph.inputs[1:]), [(16, 8), (8,)], strict=True):
        array = generator.standard_normal(shape).astype(np.float32)
        typed = array.astype(value.dtype.numpy())
        value.const_value = ir.Tensor(typed, name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def quantised(zero: int = 0) -> ir.Model:
    """Return a matrix product in INT8: symmetric, weights by channel."""
    model = graph(
        "g (float[batch,32] x, int8[32,16] w, float[16] ws, int8[16] wz)"
        " => (float[batch,16] y)"
        f"<float xs = {{0.02}}, int8 xz = {{{zero}}}> {{"
        "q = QuantizeLinear(x, xs, xz)  d = DequantizeLinear(q, xs, xz)"
        "e = DequantizeLinear<axis = 1>(w, ws, wz)  y = MatMul(d, e) }"
    )
    generator = np.random.default_rng(0)
    arrays = {
        "w": generator.integers(-127, 128, (32, 16)).astype(np.int8),
        "ws": generator.random(16, dtype=np.float32) * 0.01 + 0.001,
        "wz": np.zeros(16, np.int8),
    }
    for value in list(model.graph.inputs[1:]):
        value.const_value = ir.Tensor(arrays[str(value.name)], name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def in_blocks(rows: int = 256, columns: int = 256) -> ir.Model:
    """Return a matrix product whose weight is in INT4, with a scale for each 64 rows."""
    blocks = rows // 64
    model = graph(
        f"g (float[batch,{rows}] x, int4[{rows},{columns}] w, float[{blocks},{columns}] s)"
        f" => (float[batch,{columns}] y)"
        "{ d = DequantizeLinear<axis = 0, block_size = 64>(w, s)  y = MatMul(x, d) }"
    )
    model.opset_imports[""] = 21
    generator = np.random.default_rng(0)
    integers = generator.integers(-7, 8, (rows, columns)).astype(ir.DataType.INT4.numpy())
    scales = generator.random((blocks, columns), dtype=np.float32) * 0.01 + 0.001
    tensors = {"w": ir.Tensor(integers, dtype=ir.DataType.INT4), "s": ir.Tensor(scales)}
    for value in list(model.graph.inputs[1:]):
        value.const_value = tensors[str(value.name)]
        value.const_value.name = value.name
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model
