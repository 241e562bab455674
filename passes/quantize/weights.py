"""The weights of layers as matrices of integers, whatever the layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.errors import PlanError
from leptonc.passes.graph.constants import constant
from leptonc.passes.quantize.plan import LayerChoice
from leptonc.passes.quantize.scales import Array, RoundedWeight, column_scales, round_nearest

# The magnitude that an INT32 bias may have, with room for the sum that it is added to.
_LARGEST_BIAS = float(1 << 30)


@dataclass(frozen=True)
class WeightLayout:
    """How the weight of a node is a matrix `[K, N]` with one column for each output channel.

    Attributes:
        node: Conv, ConvTranspose, MatMul or Gemm, with a constant weight.
        axis: Of the stored weight: the output channels.
        shape: Of the stored weight.
    """

    node: ir.Node
    axis: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, node: ir.Node) -> WeightLayout:
        """Return the layout of the weight of `node`."""
        tensor = constant(node.inputs[1])
        assert tensor is not None
        turned = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
        axis = 0 if node.op_type == "Conv" or turned else 1
        return cls(node, axis, tuple(int(size) for size in tensor.shape.numpy()))

    def matrix(self) -> Array:
        """Return the weight, float32 `[K, N]`."""
        tensor = constant(self.node.inputs[1])
        assert tensor is not None
        first = np.moveaxis(np.asarray(tensor.numpy()), self.axis, 0)
        return np.ascontiguousarray(first.reshape(first.shape[0], -1).T)

    def stored(self, matrix: Array) -> Array:
        """Return a matrix like the weight's in the layout of the weight."""
        others = [size for axis, size in enumerate(self.shape) if axis != self.axis]
        first = matrix.T.reshape(self.shape[self.axis], *others)
        return np.ascontiguousarray(np.moveaxis(first, 0, self.axis))


def rounded_weight(layout: WeightLayout, choice: LayerChoice) -> RoundedWeight:
    """Return the weight as integers, as the plan has it or rounded to the nearest.

    Raises:
        PlanError: The weight holds NaN or infinity, or the plan's has another form.
    """
    weight = layout.matrix()
    if not np.isfinite(weight).all():
        raise PlanError(
            f"the weight of the layer {choice.layer!r} holds NaN or infinity",
            fix="repair the checkpoint: such a layer has no right answer in any precision",
        )
    if choice.rounded is None:
        scale = column_scales(weight, bits=choice.bits, block=choice.block)
        return round_nearest(weight, scale, bits=choice.bits, block=choice.block)
    found = choice.rounded
    block = choice.block or len(weight)
    blocks = -(-len(weight) // block)
    if found.values.shape != weight.shape or found.scale.shape != (blocks, weight.shape[1]):
        raise PlanError(
            f"the rounded weight of the layer {choice.layer!r} is {list(found.values.shape)} with "
            f"scales {list(found.scale.shape)}; {list(weight.shape)} with scales "
            f"{[blocks, weight.shape[1]]} belong there",
            fix="round the weight of this very graph, with the block size of the plan",
        )
    return found


def with_room_for_bias(
    layout: WeightLayout, rounded: RoundedWeight, bias: Array, input_scale: np.float32
) -> RoundedWeight:
    """Return the weight with larger scales where an INT32 bias would not fit.

    The bias is stored in units of `input_scale * scale`. A channel of nearly no weight makes that
    unit so small that the bias overflows; its weight is rounded again, more coarsely.

    Args:
        layout: Of the weight.
        rounded: With one scale for each column.
        bias: `[N]`.
        input_scale: Of the layer's input.
    """
    needed = np.abs(bias.astype(np.float64)) / (_LARGEST_BIAS * float(input_scale))
    scale = rounded.scale[0].astype(np.float64)
    if (needed <= scale).all():
        return rounded
    wider = np.maximum(scale, needed).astype(np.float32)[None, :]
    kept = wider[0] == rounded.scale[0]
    again = round_nearest(layout.matrix(), wider)
    values = np.where(kept, rounded.values, again.values)
    return RoundedWeight(values, wider, rounded.block)
