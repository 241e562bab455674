"""What each choice of a plan does to the output of its layer: the plan's own noise, measured."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from leptonc.compiler.quantization.layer_noise import DYNAMIC as ROUNDED_IN_EACH_CALL
from leptonc.compiler.quantization.layer_noise import EXACT, LayerError, RoundedLayer, layer_errors
from leptonc.compiler.quantization.layer_statistics import Samples
from leptonc.passes.quantize.layer_matrix import LayerMatrix
from leptonc.passes.quantize.plan import (
    DYNAMIC,
    STATIC,
    TABLE,
    LayerChoice,
    QuantizationPlan,
    find_layers,
)
from leptonc.passes.quantize.scales import Scale, scale_for
from leptonc.passes.quantize.weights import rounded_weight
from leptonc.passes.ranges.table import Ranges


def plan_errors(
    model: ir.Model, plan: QuantizationPlan, ranges: Ranges | None, samples: Samples
) -> dict[str, LayerError]:
    """Return the error of each quantised layer, by its name, when it alone is quantised.

    Embedding tables are left out: they are no products, and their rows are exact to 8 bits.

    Args:
        model: The float graph that `plan` was made for; unchanged.
        plan: How each layer is quantised.
        ranges: For the choices that are static.
        samples: Gives the calibration samples.
    """
    nodes = {layer.name: layer for layer in find_layers(model)}
    wanted = [choice for choice in plan.quantized if nodes[choice.layer].operator != TABLE]
    by_node = {nodes[choice.layer].node: choice.layer for choice in wanted}
    errors = layer_errors(model, _rounded(model, wanted, ranges, by_node), samples)
    return {by_node[node]: error for node, error in errors.items()}


def _rounded(
    model: ir.Model,
    choices: Sequence[LayerChoice],
    ranges: Ranges | None,
    by_node: dict[str, str],
) -> list[RoundedLayer]:
    by_layer = {choice.layer: choice for choice in choices}
    found: list[RoundedLayer] = []
    for node in model.graph:
        choice = by_layer.get(by_node.get(node.name or "", ""))
        if choice is None:
            continue
        layout = LayerMatrix.of(node)
        weight = layout.stored(rounded_weight(layout, choice).dequantized())
        activation: str | Scale = EXACT
        if choice.method == DYNAMIC and not choice.block:
            activation = ROUNDED_IN_EACH_CALL
        elif choice.method == STATIC and ranges is not None:
            value = node.inputs[0]
            assert value is not None
            low, high = choice.range(ranges, str(value.name))
            activation = scale_for(low, high, symmetric=choice.symmetric)
        found.append(RoundedLayer(node.name or "", weight, activation))
    return found
