"""The weights of layers as matrices of integers, as a plan says."""

from __future__ import annotations

import numpy as np

from leptonc.passes.errors import PlanError
from leptonc.passes.quantize.layer_matrix import LayerMatrix
from leptonc.passes.quantize.plan import LayerChoice
from leptonc.passes.quantize.scales import Array, RoundedWeight, column_scales, round_nearest

# The magnitude that an INT32 bias may have, with room for the sum that it is added to.
_LARGEST_BIAS = float(1 << 30)


def rounded_weight(layer: LayerMatrix, choice: LayerChoice) -> RoundedWeight:
    """Return the weight as integers, as the plan has it or rounded to the nearest.

    Raises:
        PlanError: The weight holds NaN or infinity, or the plan's has another form.
    """
    weight = layer.weight()
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
    layer: LayerMatrix, rounded: RoundedWeight, bias: Array, input_scale: np.float32
) -> RoundedWeight:
    """Return the weight with larger scales where an INT32 bias would not fit.

    The bias is stored in units of `input_scale * scale`. A channel of nearly no weight makes that
    unit so small that the bias overflows; its weight is rounded again, more coarsely.

    Args:
        layer: With its weight.
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
    again = round_nearest(layer.weight(), wider)
    values = np.where(kept, rounded.values, again.values)
    return RoundedWeight(values, wider, rounded.block)
