"""Moves factors by channel from what makes a tensor to what reads it; every output stays equal.

Let X have channels c, be made by operators that are linear in some constants along c, and be
read by layers whose weights have an input channel for each c. For any s > 0

    X'[..., c] = X[..., c] / s[c],     W'[c, ...] = W[c, ...] * s[c]     =>     X' W' = X W

Between the two may stand what is positively homogeneous by channel: f(a x) = a f(x) for a > 0,
which holds for Relu, LeakyRelu and the poolings. Each s[c] is a power of two, so the products
and sums of the new graph have the bits of the old one (but for underflow): the rewrite is exact.

Cross-layer equalisation (M. Nagel et al., "Data-Free Quantization Through Weight Equalization and
Bias Correction", 2019) and SmoothQuant (G. Xiao et al., 2022) are both this rewrite; they differ
in how they choose s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.base import Refusal
from leptonc.passes.graph.constants import constant
from leptonc.passes.rewriting.site import operator

Floats = np.ndarray[Any, np.dtype[np.float64]]

# One input, and f(a x) = a f(x) for every a > 0, channel by channel.
HOMOGENEOUS = frozenset(
    {
        *("Relu", "LeakyRelu", "Identity", "Dropout"),
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
    }
)
NORMALIZATIONS = frozenset({"LayerNormalization", "RMSNormalization"})
LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
# Factors beyond this bring weights near the ends of the float range.
LARGEST_POWER = 12


@dataclass(frozen=True)
class Operand:
    """A constant and its axis that runs over the channels."""

    value: ir.Value
    axis: int

    def array(self) -> np.ndarray[Any, Any]:
        """Return the elements with the channels first: `[C, elements per channel]`."""
        tensor = constant(self.value)
        assert tensor is not None
        found = np.moveaxis(tensor.numpy(), self.axis, 0)
        return found.reshape(found.shape[0], -1)


@dataclass(frozen=True)
class Scalable:
    """A tensor whose channels can be scaled.

    Attributes:
        source: The node that makes it.
        tensors: Every tensor between the source and the readers, the source's output first.
        inputs: Those of `tensors` that a layer reads, without repetitions, in graph order.
        divided: The constants of the source side.
        multiplied: The weights of the readers.
        readers: The layers, in graph order.
        channels: How many there are.
    """

    source: ir.Node
    tensors: tuple[ir.Value, ...]
    inputs: tuple[ir.Value, ...]
    divided: tuple[Operand, ...]
    multiplied: tuple[Operand, ...]
    readers: tuple[ir.Node, ...]
    channels: int


def find_scalable(model: ir.Model) -> tuple[tuple[Scalable, ...], tuple[Refusal, ...]]:
    """Return each tensor of the main graph whose channels can be scaled, in graph order.

    Returns:
        What was found, and why it was not at sources that only a layer reads.
    """
    found: list[Scalable] = []
    refused: list[Refusal] = []
    for node in model.graph:
        start = _source(node)
        if start is None:
            continue
        outcome = _follow(node, start)
        if isinstance(outcome, Scalable):
            found.append(outcome)
        elif outcome:
            refused.append(Refusal(node.name or "", outcome, "channel-scaling"))
    return tuple(found), tuple(refused)


def scale_channels(found: Scalable, powers: Sequence[int]) -> None:
    """Divide the tensor by `2 ** powers` and multiply the weights of its readers by it.

    The constants change in place and keep their names.

    Args:
        found: From `find_scalable` on this graph.
        powers: One for each channel.
    """
    factors = np.asarray(powers, dtype=np.int32)
    for operand in found.divided:
        _scale(operand, -factors)
    for operand in found.multiplied:
        _scale(operand, factors)


def _scale(operand: Operand, powers: np.ndarray[Any, Any]) -> None:
    tensor = constant(operand.value)
    assert tensor is not None
    array = tensor.numpy()
    shape = [1] * array.ndim
    shape[operand.axis] = -1
    scaled = np.ldexp(array, powers.reshape(shape)).astype(array.dtype)
    operand.value.const_value = ir.Tensor(scaled, name=operand.value.name)


@dataclass(frozen=True)
class _Start:
    """The source side of a scaling: its constants, and the channel axis from the end or front."""

    operands: tuple[Operand, ...]
    channels: int
    # 1 for `[N, C, ...]`, -1 for `[..., C]`.
    axis: int


def _source(node: ir.Node) -> _Start | None:
    """Return how `node` can be scaled at its output, or None when it is no source."""
    if node.domain or len(node.outputs) != 1:
        return None
    if node.op_type in NORMALIZATIONS:
        if node.attributes.get_int("axis", -1) != -1:
            return None
        return _start(node, (1, 2), axis=-1, operand_axis=-1)
    if node.op_type == "Conv":
        return _start(node, (1, 2), axis=1, operand_axis=0)
    if node.op_type == "Gemm":
        weight_axis = 0 if node.attributes.get_int("transB", 0) else 1
        made = _start(node, (1,), axis=-1, operand_axis=weight_axis)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if made is None or bias is None:
            return made
        shared = _vector(bias, made.channels)
        return None if shared is None else _Start((*made.operands, shared), made.channels, -1)
    if node.op_type == "MatMul":
        return _start(node, (1,), axis=-1, operand_axis=1)
    return None


def _start(node: ir.Node, indices: Sequence[int], *, axis: int, operand_axis: int) -> _Start | None:
    operands: list[Operand] = []
    for index in indices:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            continue
        tensor = _own_floats(value)
        if tensor is None:
            return None
        rank = len(tensor.shape.numpy())
        if node.op_type == "MatMul" and rank != 2:
            return None
        operands.append(Operand(value, operand_axis % rank if rank else 0))
    sizes = {_size(each) for each in operands}
    if len(sizes) != 1 or 0 in sizes:
        return None
    return _Start(tuple(operands), sizes.pop(), axis)


def _size(operand: Operand) -> int:
    tensor = constant(operand.value)
    assert tensor is not None
    shape = tensor.shape.numpy()
    return int(shape[operand.axis]) if shape else 0


def _own_floats(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of a float32 initializer that has one reader, or None."""
    tensor = constant(value)
    if value is None or tensor is None or not value.is_initializer() or value.is_graph_output():
        return None
    alone = len(value.uses()) == 1 and tensor.dtype == ir.DataType.FLOAT
    return tensor if alone else None


def _vector(value: ir.Value, channels: int) -> Operand | None:
    """Return a constant that is added along the last axis, one element for each channel."""
    tensor = _own_floats(value)
    if tensor is None:
        return None
    shape = tuple(int(size) for size in tensor.shape.numpy())
    if not shape or shape[-1] != channels or tensor.size != channels:
        return None
    return Operand(value, len(shape) - 1)


def _follow(source: ir.Node, start: _Start) -> Scalable | str:
    """Follow the output of `source` to its readers; return why not all of them can be scaled.

    The reason is empty where no layer reads the tensor at all.
    """
    tensors = [source.outputs[0]]
    divided, multiplied = list(start.operands), list[Operand]()
    inputs, readers = list[ir.Value](), list[ir.Node]()
    reason = ""
    for tensor in tensors:
        if tensor.is_graph_output():
            reason = reason or f"{tensor.name!r} is an output of the graph"
        for use in tensor.uses():
            node = use.node
            step = _step(node, use.idx, start) if node.graph is source.graph else "a subgraph"
            if isinstance(step, str):
                reason = reason or f"{tensor.name!r} is also read by {node.name!r} ({step})"
            elif step is None:
                tensors.append(node.outputs[0])
            elif node.op_type in LAYERS:
                multiplied.append(step)
                readers.append(node)
                if tensor not in inputs:
                    inputs.append(tensor)
            else:
                divided.append(step)
                tensors.append(node.outputs[0])
    if not readers or reason:
        return reason if readers else ""
    return Scalable(
        source,
        tuple(tensors),
        tuple(inputs),
        tuple(divided),
        tuple(multiplied),
        tuple(readers),
        start.channels,
    )


def _step(node: ir.Node, index: int, start: _Start) -> Operand | str | None:
    """Say how `node` takes a scaled tensor as input `index`.

    Returns:
        The constant that changes with it; None where nothing changes; or the operator's name
        where it cannot take a scaled tensor.
    """
    if not node.domain and node.op_type in HOMOGENEOUS and index == 0 and _one_output(node):
        return None
    if not node.domain and node.op_type == "Add" and start.axis == -1:
        other = node.inputs[1 - index]
        found = None if other is None else _vector(other, start.channels)
        return found or operator(node)
    if node.domain or node.op_type not in LAYERS or index != 0:
        return operator(node)
    return _reader(node, start) or operator(node)


def _one_output(node: ir.Node) -> bool:
    used = [output for output in node.outputs if output.uses() or output.is_graph_output()]
    return used == [node.outputs[0]]


def _reader(node: ir.Node, start: _Start) -> Operand | None:
    weight = node.inputs[1]
    tensor = _own_floats(weight)
    if weight is None or tensor is None:
        return None
    shape = tuple(int(size) for size in tensor.shape.numpy())
    group = node.attributes.get_int("group", 1)
    if node.op_type == "Conv":
        # With a group for each channel the filters of input channel c are those of output c.
        axis = 1 if group == 1 else 0
        fits = start.axis == 1 and (group == 1 or (shape[1] == 1 and shape[0] == group))
    elif start.axis != -1 or len(shape) != 2:
        return None
    elif node.op_type == "Gemm":
        axis = 1 if node.attributes.get_int("transB", 0) else 0
        fits = not node.attributes.get_int("transA", 0)
    else:
        axis, fits = 0, True
    return Operand(weight, axis) if fits and shape[axis] == start.channels else None
