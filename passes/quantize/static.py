"""Explicit quantisation within ranges known beforehand: pairs of QuantizeLinear and its inverse.

    x' = DQ(Q(x)),   Q(x) = clip(rint(x / s) + z),   DQ(q) = (q - z) * s

The graph stays a graph of float operators that read DQ and feed Q. An engine that sees
DQ -> operator -> Q computes the operator in integers; one that does not computes the same numbers
in float. So one graph serves every backend, and can be checked on any.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from leptonc.passes.errors import PlanError, RangesError
from leptonc.passes.graph.constants import constant
from leptonc.passes.graph.insertion import Insertion
from leptonc.passes.quantize.integer_flow import IntegerFlow, find_flow
from leptonc.passes.quantize.layer_matrix import LayerMatrix
from leptonc.passes.quantize.plan import LayerChoice
from leptonc.passes.quantize.scales import Array, Scale, integer_bias, scale_for
from leptonc.passes.quantize.weights import rounded_weight, with_room_for_bias
from leptonc.passes.ranges.table import Ranges


def quantize_static(
    graph: ir.Graph,
    chosen: dict[ir.Node, LayerChoice],
    ranges: Ranges,
    insert: Insertion,
) -> None:
    """Quantise layers and what lies between them.

    Where activations are uint8, biases are INT32; where they are symmetric, biases stay in float.

    Args:
        graph: The main graph, rewritten in place.
        chosen: The layers with the plan's choices, in graph order, all symmetric or none.
        ranges: What was observed.
        insert: Makes the nodes.

    Raises:
        RangesError: The range of a layer's input or output is not known.
        PlanError: A weight cannot be rounded.
    """
    flow = find_flow(graph, chosen, lambda value: str(value.name) in ranges)
    by_value: dict[ir.Value, LayerChoice] = {}
    for node, choice in chosen.items():
        for value in (node.inputs[0], *node.outputs):
            if value is not None:
                by_value.setdefault(value, choice)
    default = next(iter(chosen.values()))
    found: dict[ir.Value, Scale] = {}
    for value in flow.tensors:
        group = {each: by_value.get(each, default) for each in flow.groups[value]}
        found[value] = _joint_scale(value, group, ranges)
    for node, choice in chosen.items():
        source = node.inputs[0]
        assert source is not None
        _quantize_weight(insert, node, choice, found[source])
    for value in flow.tensors:
        _insert_pair(insert, value, found[value], flow)


def _joint_scale(value: ir.Value, group: dict[ir.Value, LayerChoice], ranges: Ranges) -> Scale:
    """Return the scale of the tensors that share one, `value` among them."""
    known = {str(each.name): choice for each, choice in group.items() if str(each.name) in ranges}
    if not known:
        # Says that it is not known, and what to do.
        ranges.observed(str(value.name))
    bounds = {name: choice.range(ranges, name) for name, choice in known.items()}
    for name, (low, high) in bounds.items():
        if not np.isfinite([low, high]).all():
            raise RangesError(
                f"the range of tensor {name!r} is not finite: {low} to {high}",
                fix="calibrate with data on which the model computes finite numbers",
            )
    low, high = min(low for low, _ in bounds.values()), max(high for _, high in bounds.values())
    return scale_for(low, high, symmetric=group[value].symmetric)


def _insert_pair(insert: Insertion, value: ir.Value, scale: Scale, flow: IntegerFlow) -> None:
    """Put Q and DQ behind `value`, for its readers in integers or, if it is made in them, all."""
    name = str(value.name)
    uses = [use for use in value.uses() if value in flow.made or use.node in flow.readers]
    is_output = value.is_graph_output() and value in flow.made
    graph = value.graph
    insert.after(value)
    stems = (f"{name}_scale", f"{name}_zero_point")
    parts = [insert.constant(*each) for each in zip(scale.parts(), stems, strict=True)]
    quantized = insert.op("QuantizeLinear", [value, *parts], f"{name}_quantized")
    result = insert.op(
        "DequantizeLinear",
        [quantized, *parts],
        f"{name}_dequantized",
        dtype=value.dtype,
        shape=value.shape,
    )
    for use in uses:
        if use.node in flow.readers and use.idx != 0 and use.node.op_type not in ("Add", "Concat"):
            continue
        use.node.replace_input_with(use.idx, result)
    if is_output:
        assert graph is not None
        index = list(graph.outputs).index(value)
        inner = f"{name}_float"
        graph.outputs[index] = result
        value.name, result.name = inner, name
        result.type, result.shape = value.type, value.shape


def _quantize_weight(insert: Insertion, node: ir.Node, choice: LayerChoice, source: Scale) -> None:
    layout = LayerMatrix.of(node)
    rounded = rounded_weight(layout, choice)
    _shift_bias(insert.before(node), node, choice)
    bias = _row_bias(node, rounded.values.shape[1]) if not choice.symmetric else None
    if bias is not None:
        rounded = with_room_for_bias(layout, rounded, bias, source.step)
    weight = node.inputs[1]
    assert weight is not None
    scale = rounded.scale[0]
    stored = dequantized(insert.before(node), weight, layout, rounded.values, scale, choice=choice)
    node.replace_input_with(1, stored)
    if bias is None:
        return
    unit = (scale * source.step).astype(np.float32)
    plain = node.inputs[2]
    assert plain is not None
    inputs = [
        insert.constant(integer_bias(bias, unit), f"{plain.name}_int32"),
        insert.constant(unit, f"{plain.name}_scale"),
    ]
    found = insert.op(
        "DequantizeLinear",
        inputs,
        f"{plain.name}_dequantized",
        {"axis": 0},
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape([len(bias)]),
    )
    node.replace_input_with(2, found)


def dequantized(
    insert: Insertion,
    weight: ir.Value,
    layout: LayerMatrix,
    values: Array,
    scale: Array,
    *,
    choice: LayerChoice,
) -> ir.Value:
    """Return a weight as DequantizeLinear of integers with a scale for each output channel."""
    name = str(weight.name)
    inputs = [
        choice.note(insert.constant(layout.stored(values), f"{name}_int8")),
        insert.constant(np.asarray(scale, dtype=np.float32), f"{name}_scale"),
        insert.constant(np.zeros(scale.shape, np.int8), f"{name}_zero_point"),
    ]
    return insert.op(
        "DequantizeLinear",
        inputs,
        f"{name}_dequantized",
        {"axis": layout.axis},
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(layout.shape),
    )


def _shift_bias(insert: Insertion, node: ir.Node, choice: LayerChoice) -> None:
    """Add the shift of a plan to the bias of a layer, or give it one."""
    if choice.shift is None:
        return
    plain = node.inputs[2] if len(node.inputs) > 2 else None
    old = np.zeros_like(choice.shift) if plain is None else _row_bias(node, len(choice.shift))
    if old is None:
        raise PlanError(
            f"the bias of the layer {choice.layer!r} is no constant row, and cannot be corrected",
            fix="leave the shift of that layer out of the plan",
        )
    name = f"{choice.layer}_bias" if plain is None else f"{plain.name}_corrected"
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    shifted = np.asarray(old + choice.shift, dtype=np.float32)
    node.replace_input_with(2, insert.constant(shifted, name))


def _row_bias(node: ir.Node, columns: int) -> Array | None:
    """Return the bias of a layer where it is a constant row."""
    if len(node.inputs) < 3:
        return None
    tensor = constant(node.inputs[2])
    if tensor is None or tensor.size != columns or len(tensor.shape) != 1:
        return None
    found = np.asarray(tensor.numpy())
    return found if np.isfinite(found).all() else None
