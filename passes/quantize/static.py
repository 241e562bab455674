"""Explicit quantisation within ranges known beforehand: pairs of QuantizeLinear and its inverse.

    x' = DQ(Q(x)),   Q(x) = clip(rint(x / s) + z),   DQ(q) = (q - z) * s

The graph stays a graph of float operators that read DQ and feed Q. An engine that sees
DQ -> operator -> Q computes the operator in integers; one that does not computes the same numbers
in float. So one graph serves every backend, and can be checked on any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.errors import PlanError, RangesError
from leptonc.passes.graph.constants import constant
from leptonc.passes.graph.insertion import Insertion
from leptonc.passes.quantize.integer_flow import IntegerFlow, find_flow
from leptonc.passes.quantize.plan import LayerChoice
from leptonc.passes.quantize.weights import (
    WeightLayout,
    integer_bias,
    rounded_weight,
    with_room_for_bias,
)
from leptonc.passes.ranges.table import Ranges

Array = np.ndarray[Any, Any]
# Below this a scale has no inverse in float32.
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny) * 256


@dataclass(frozen=True)
class StaticForm:
    """What a target takes.

    Attributes:
        symmetric: Activations are int8 with zero point 0; otherwise uint8 with any.
        integer_bias: Biases are INT32.
    """

    symmetric: bool
    integer_bias: bool


@dataclass(frozen=True)
class Scale:
    """How numbers become integers: `q = rint(x / step) + zero`."""

    step: float
    zero: int
    low: float
    high: float


def scale_for(low: float, high: float, *, symmetric: bool) -> Scale:
    """Return the scale that covers a range which holds 0.

    Args:
        low: At most 0.
        high: At least 0.
        symmetric: Zero point 0 in int8; otherwise uint8.
    """
    if symmetric:
        step = max(-low, high) / 127.0
        return Scale(step if step > _SMALLEST_SCALE else 1.0, 0, low, high)
    step = (high - low) / 255.0
    if not step > _SMALLEST_SCALE:
        return Scale(1.0, 0, low, high)
    step = float(np.float32(step))
    return Scale(step, int(np.clip(np.rint(-low / step), 0, 255)), low, high)


def quantize_static(
    graph: ir.Graph,
    chosen: dict[ir.Node, LayerChoice],
    ranges: Ranges,
    insert: Insertion,
    form: StaticForm,
) -> dict[str, Scale]:
    """Quantise layers and what lies between them; return the scales by tensor.

    Args:
        graph: The main graph, rewritten in place.
        chosen: The layers with the plan's choices, in graph order.
        ranges: What was observed.
        insert: Makes the nodes.
        form: What the target takes.

    Raises:
        RangesError: The range of a layer's input or output is not known.
        PlanError: A weight cannot be rounded.
    """
    flow = find_flow(graph, chosen, lambda value: str(value.name) in ranges)
    scales = _Scales(flow, chosen, ranges, form)
    found = {value: scales.of(value) for value in flow.tensors}
    for node, choice in chosen.items():
        source = node.inputs[0]
        assert source is not None
        _quantize_weight(insert, node, choice, found[source], form)
    for value in flow.tensors:
        _insert_pair(insert, value, found[value], flow, form)
    return {str(value.name): scale for value, scale in found.items()}


class _Scales:
    """Looks up the range of each tensor, and joins those that share a scale."""

    def __init__(
        self,
        flow: IntegerFlow,
        chosen: dict[ir.Node, LayerChoice],
        ranges: Ranges,
        form: StaticForm,
    ) -> None:
        self._flow = flow
        self._ranges = ranges
        self._form = form
        self._methods: dict[ir.Value, LayerChoice] = {}
        for node, choice in chosen.items():
            for value in (node.inputs[0], *node.outputs):
                if value is not None:
                    self._methods.setdefault(value, choice)
        self._default = next(iter(chosen.values()))

    def of(self, value: ir.Value) -> Scale:
        group = self._flow.groups[value]
        known = [member for member in group if str(member.name) in self._ranges]
        if not known:
            # Says that it is not known, and what to do.
            self._ranges.observed(str(value.name))
        bounds = [self._range(member) for member in known]
        low, high = min(bound[0] for bound in bounds), max(bound[1] for bound in bounds)
        return scale_for(low, high, symmetric=self._form.symmetric)

    def _range(self, value: ir.Value) -> tuple[float, float]:
        choice = self._methods.get(value, self._default)
        low, high = self._ranges.range(
            str(value.name),
            choice.range_method,
            percent=choice.percent,
            symmetric=self._form.symmetric,
        )
        if not np.isfinite([low, high]).all():
            raise RangesError(
                f"the range of tensor {value.name!r} is not finite: {low} to {high}",
                fix="calibrate with data on which the model computes finite numbers",
            )
        return low, high


def _insert_pair(
    insert: Insertion, value: ir.Value, scale: Scale, flow: IntegerFlow, form: StaticForm
) -> None:
    """Put Q and DQ behind `value`, for its readers in integers or, if it is made in them, all."""
    name = str(value.name)
    uses = [use for use in value.uses() if value in flow.made or use.node in flow.readers]
    is_output = value.is_graph_output() and value in flow.made
    graph = value.graph
    dtype = np.int8 if form.symmetric else np.uint8
    insert.after(value)
    parts = [
        insert.constant(np.array(scale.step, np.float32), f"{name}_scale"),
        insert.constant(np.array(scale.zero, dtype), f"{name}_zero_point"),
    ]
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


def _quantize_weight(
    insert: Insertion, node: ir.Node, choice: LayerChoice, source: Scale, form: StaticForm
) -> None:
    layout = WeightLayout.of(node)
    rounded = rounded_weight(layout, choice)
    _shift_bias(insert.before(node), node, choice)
    bias = _row_bias(node, rounded.values.shape[1]) if form.integer_bias else None
    if bias is not None:
        rounded = with_room_for_bias(layout, rounded, bias, source.step)
    weight = node.inputs[1]
    assert weight is not None
    scale = rounded.scale[0]
    stored = dequantized(insert.before(node), weight, layout, rounded.values, scale, choice=choice)
    node.replace_input_with(1, stored)
    if bias is None:
        return
    unit = (scale * np.float32(source.step)).astype(np.float32)
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
    layout: WeightLayout,
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
