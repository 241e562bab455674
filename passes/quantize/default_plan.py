"""Which method each layer gets when the user names none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from leptonc.passes.errors import PassRefusedError
from leptonc.passes.quantize.layer_matrix import LayerMatrix
from leptonc.passes.quantize.methods import AUTO, DYNAMIC, FLOAT, STATIC, WEIGHT_ONLY
from leptonc.passes.quantize.plan import (
    CONVOLUTIONS,
    TABLE,
    Layer,
    LayerChoice,
    QuantizationPlan,
    find_layers,
)
from leptonc.passes.ranges.methods import DEFAULT_PERCENTILE
from leptonc.passes.ranges.table import Ranges
from leptonc.passes.targets import CONTRIB, UINT8_ACTIVATIONS

INT8, INT4 = "int8", "int4"
# The block by bits: 4 bits need smaller ones to stay accurate.
_CONTRIB_BLOCKS = {8: 128, 4: 32}
# DequantizeLinear takes full blocks only. 64 comes first: of the sizes that TensorRT 10 documents
# it is the more accurate one.
_FULL_BLOCKS = (64, 32, 16)


@dataclass(frozen=True)
class Quantization:
    """How to quantise, as the user said it.

    Attributes:
        method: "auto" chooses by target and model.
        range_method: How ranges follow from what was observed.
        percent: For the range method "percentile".
        block: Rows of a weight that share a scale; 0 for the default of the method.
    """

    method: str = AUTO
    range_method: str = "mse"
    percent: float = DEFAULT_PERCENTILE
    block: int = 0


def default_plan(
    model: ir.Model,
    target: str,
    precision: str,
    ranges: Ranges | None,
    quantization: Quantization = Quantization(),
) -> QuantizationPlan:
    """Return a choice for every layer of `model`.

    "auto" makes convolutional networks static. Others are dynamic where the target has that (on a
    CPU ONNX Runtime computes dynamic layers faster and more accurately), and static elsewhere.
    INT4 is weight-only; so is every embedding table. Off ONNX Runtime, INT4 is for products of
    matrices whose rows fill blocks; what else there is stays in float.

    Args:
        model: The float graph.
        target: One of `leptonc.passes.TARGETS`.
        precision: "int8" or "int4".
        ranges: What calibration observed; static layers need it.
        quantization: What the user asked for.

    Raises:
        PassRefusedError: Nothing can be quantised like that, or it needs ranges.
    """
    layers = find_layers(model)
    method = resolved_method(layers, target, precision, quantization.method)
    if method == STATIC and ranges is None:
        raise PassRefusedError(
            "static quantisation needs ranges, and there are none: no data, no INT8",
            fix="give calibration_data() in the recipe, or a table with --calibration",
        )
    if method == STATIC and quantization.block:
        raise PassRefusedError(
            "static quantisation has one scale for each output channel, and no blocks",
            fix="leave out --block-size, or use --quantization weight-only",
        )
    nodes = {str(node.outputs[0].name): node for node in model.graph if node.outputs}
    bits = 4 if precision == INT4 else 8
    choices = tuple(
        _choice(layer, nodes[layer.name], target, replace(quantization, method=method), bits)
        for layer in layers
    )
    plan = QuantizationPlan(choices)
    if not plan.quantized:
        reasons = sorted({choice.reason for choice in choices if choice.reason})
        raise PassRefusedError(
            f"nothing in this graph can be {precision} by the method {method!r}",
            where="; ".join(reasons) or "it has no convolution, linear layer or table",
            fix="compile it with -p fp32, or choose another --quantization",
        )
    return plan


def resolved_method(layers: Sequence[Layer], target: str, precision: str, method: str) -> str:
    """Return the method that "auto" stands for, or `method` itself.

    Raises:
        PassRefusedError: The target or the precision does not go with the method.
    """
    if precision == INT4:
        if method not in (AUTO, WEIGHT_ONLY):
            raise PassRefusedError(
                f"int4 is weight-only; {method!r} computes with activations of 8 bits",
                fix="use -p int8, or --quantization weight-only",
            )
        return WEIGHT_ONLY
    if method == DYNAMIC and target not in CONTRIB:
        raise PassRefusedError(
            "only ONNX Runtime has integer products with ranges found in each call",
            fix="use --quantization static or weight-only",
        )
    if method != AUTO:
        return method
    if target not in CONTRIB or is_convolutional(layers):
        return STATIC
    return DYNAMIC


def is_convolutional(layers: Sequence[Layer]) -> bool:
    """Whether convolutions hold at least half of the weights that are multiplied."""
    by_kind = {True: 0, False: 0}
    for layer in layers:
        if layer.operator != TABLE:
            by_kind[layer.operator in CONVOLUTIONS] += layer.parameters
    return by_kind[True] > 0 and by_kind[True] >= by_kind[False]


def _choice(
    layer: Layer, node: ir.Node, target: str, quantization: Quantization, bits: int
) -> LayerChoice:
    if layer.operator == TABLE:
        if target in CONTRIB:
            return LayerChoice(layer.name, WEIGHT_ONLY)
        return LayerChoice(layer.name, FLOAT, reason="only ONNX Runtime has tables of integers")
    method = quantization.method
    reason = _obstacle(layer, node, method, target)
    if reason is not None:
        return LayerChoice(layer.name, FLOAT, reason=reason)
    if method == STATIC:
        return LayerChoice(
            layer.name,
            STATIC,
            range_method=quantization.range_method,
            percent=quantization.percent,
            symmetric=target not in UINT8_ACTIVATIONS,
        )
    if method == DYNAMIC:
        return LayerChoice(layer.name, DYNAMIC, block=quantization.block)
    return _weight_only(layer, node, target, bits, quantization.block)


def _weight_only(layer: Layer, node: ir.Node, target: str, bits: int, asked: int) -> LayerChoice:
    """Return the choice for a layer whose weight alone is in integers.

    Args:
        layer: A convolution or a product.
        node: Its node.
        target: What the graph is for.
        bits: Of the weight.
        asked: The block that the user named, or 0.
    """
    if layer.operator in CONVOLUTIONS:
        if bits == 4 and target not in CONTRIB:
            reason = "only products of matrices have weights in 4 bits"
            return LayerChoice(layer.name, FLOAT, reason=reason)
        # In blocks or in 4 bits no engine takes the weights of a convolution.
        return LayerChoice(layer.name, WEIGHT_ONLY)
    if target in CONTRIB:
        return LayerChoice(layer.name, WEIGHT_ONLY, bits=bits, block=asked or _CONTRIB_BLOCKS[bits])
    if bits == 8 and not asked:
        return LayerChoice(layer.name, WEIGHT_ONLY)
    layout = LayerMatrix.of(node)
    rows = layout.rows
    possible = (asked,) if asked else _FULL_BLOCKS
    for block in possible:
        if rows % block == 0:
            return LayerChoice(layer.name, WEIGHT_ONLY, bits=bits, block=block)
    sizes = " or ".join(map(str, possible))
    return LayerChoice(layer.name, FLOAT, reason=f"its {rows} rows do not fill blocks of {sizes}")


def _obstacle(layer: Layer, node: ir.Node, method: str, target: str) -> str | None:
    """Return why the layer stays in float, or None."""
    if layer.operator == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
        return "a transposed convolution in groups shares scales among the groups"
    if layer.operator == "ConvTranspose" and method == STATIC and target in CONTRIB:
        return "ONNX Runtime has no transposed convolution in integers"
    if layer.operator in CONVOLUTIONS and method == DYNAMIC:
        return "ONNX Runtime has no convolution in integers with a scale for each channel"
    if method == STATIC and layer.operator == "Gemm":
        factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
        if factors != [1.0, 1.0]:
            return "a Gemm with factors has no integer form"
    return None
