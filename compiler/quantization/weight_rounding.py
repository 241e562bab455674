"""Wins accuracy back before a plan is carried out: smooths activations, rounds weights well.

For each layer the cheapest method that helps is taken. A layer that is dynamic has the noise of
its rounded inputs as well; where that is far above the noise of the weights, rounding them
better changes nothing, and the nearest values are kept.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from leptonc.compiler.calibration.held_samples import CalibrationSamples
from leptonc.compiler.quantization.layer_statistics import LayerStatistics, statistics_in_groups
from leptonc.compiler.quantization.smoothing import choose_smoothing, round_activations
from leptonc.passes.base import PassStats
from leptonc.passes.graph.constants import constant
from leptonc.passes.pipeline import run_passes
from leptonc.passes.quantize.gptq import corrected_bias, error_over, round_best
from leptonc.passes.quantize.layer_matrix import LayerMatrix, layer_matrix
from leptonc.passes.quantize.methods import DYNAMIC, FLOAT, STATIC, WEIGHT_ONLY
from leptonc.passes.quantize.plan import LayerChoice, QuantizationPlan
from leptonc.passes.quantize.scales import Array, RoundedWeight, column_scales, round_nearest
from leptonc.passes.rescale.smooth import Smooth, find_smoothable

# GPTQ pays where the noise of the weights is at least this part of that of the inputs.
WORTH_GPTQ = 1.0
# A corrected bias has to leave less than this part of the noise of the weights.
WORTH_A_SHIFT = 0.95
# Scales other than the plain ones have to leave less than this part of the noise.
WORTH_OTHER_SCALES = 0.9


def smooth(
    model: ir.Model, plan: QuantizationPlan, samples: CalibrationSamples, *, insert: bool = True
) -> tuple[tuple[PassStats, ...], tuple[str, ...]]:
    """Smooth the inputs of layers that round them, in place.

    Args:
        model: The float graph that `plan` was made for; its outputs keep their bits.
        plan: Tensors that a layer of another method reads stay as they are.
        samples: What the strengths are chosen on.
        insert: Whether a division may take a node of its own.

    Returns:
        What was done, and the names of the tensors that were smoothed.
    """
    rounding = {choice.layer for choice in plan.choices if choice.method in (STATIC, DYNAMIC)}
    wanted = [
        found
        for found in find_smoothable(model)
        if all(layer.name in rounding for layer in found.layers) and (found.folds or insert)
    ]
    by_first = {id(found.layers[0]): found for found in wanted}
    firsts = [found.layers[0] for found in wanted]
    chosen = [
        made[0]
        for layer, seen in statistics_in_groups(model, firsts, samples.each, samples.count)
        if (made := choose_smoothing(by_first[id(layer)], seen, insert=insert)) is not None
    ]
    if not chosen:
        return (), ()
    passes = run_passes(model, (Smooth(tuple(chosen)),))
    return passes, tuple(each.tensor for each in chosen)


def round_weights(
    model: ir.Model, plan: QuantizationPlan, samples: CalibrationSamples
) -> QuantizationPlan:
    """Return the plan with the weights of its layers rounded by what that does to their outputs.

    Layers that are no product of matrices (grouped convolutions, embeddings) stay as they are.
    """
    layers = {
        layer.name: layer for node in model.graph if (layer := layer_matrix(node)) is not None
    }
    choices = {
        choice.layer: choice
        for choice in plan.choices
        if choice.method in (STATIC, DYNAMIC, WEIGHT_ONLY)
        and choice.layer in layers
        and choice.rounded is None
    }
    first = [layers[name] for name in choices]
    rounded: dict[str, tuple[str, RoundedWeight]] = {}
    shifts: dict[str, Array | None] = {}
    careful: list[LayerMatrix] = []
    for layer, seen in statistics_in_groups(model, first, samples.each, samples.count):
        choice = choices[layer.name]
        simple, error = _least_error(layer, seen, choice)
        if _deserves_gptq(choice, error, seen, layer):
            careful.append(layer)
        else:
            rounded[layer.name] = simple
            shifts[layer.name] = _shift(layer, seen, choice, simple[1])
    for layer, seen in statistics_in_groups(
        model, careful, samples.each, samples.count, hessians=True
    ):
        choice = choices[layer.name]
        assert seen.hessian is not None
        rounded[layer.name] = round_best(
            layer.weight(),
            seen.hessian,
            bits=choice.bits,
            block=choice.block,
            held_out=seen.kept,
        )
        made = rounded[layer.name][1]
        shifts[layer.name] = _shift(layer, seen, choice, made)
    return plan.with_choices(
        [
            replace(
                choices[name],
                rounding=method,
                rounded=None if method == "nearest" else weight,
                shift=shifts[name],
            )
            for name, (method, weight) in rounded.items()
        ]
    )


def _shift(
    layer: LayerMatrix, seen: LayerStatistics, choice: LayerChoice, made: RoundedWeight
) -> Array | None:
    """Return what corrects the bias of a static layer, where that leaves out enough noise."""
    node = layer.node
    plain = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = constant(plain)
    row = plain is None or (tensor is not None and list(tensor.shape.numpy()) == [layer.columns])
    if choice.method != STATIC or node.op_type == "MatMul" or not row:
        return None
    weight = layer.weight()
    shift = corrected_bias(weight, made, seen.mean)
    lost = seen.kept @ (weight - made.dequantized())
    before, after = float(np.square(lost).sum()), float(np.square(lost - shift).sum())
    return shift if after < WORTH_A_SHIFT * before else None


def _least_error(
    layer: LayerMatrix, seen: LayerStatistics, choice: LayerChoice
) -> tuple[tuple[str, RoundedWeight], float]:
    """Return the simple rounding that is best over held-out rows, and its error there."""
    weight = layer.weight()
    bits, block = choice.bits, choice.block
    plain = column_scales(weight, bits=bits, block=block)
    least = column_scales(weight, seen.energy, bits=bits, block=block)
    tried = [
        ("nearest", round_nearest(weight, plain, bits=bits, block=block)),
        ("mse", round_nearest(weight, least, bits=bits, block=block)),
    ]
    rows = seen.kept.astype(np.float64)
    errors = [error_over(rows, weight, made) for _, made in tried]
    best = int(errors[1] < WORTH_OTHER_SCALES * errors[0])
    return tried[best], errors[best]


def _deserves_gptq(
    choice: LayerChoice, error: float, seen: LayerStatistics, layer: LayerMatrix
) -> bool:
    if choice.method == FLOAT or error == 0.0:
        return False
    if choice.method == WEIGHT_ONLY:
        return True
    exact = seen.kept @ layer.weight()
    signal = float(np.sum(np.square(exact, dtype=np.float64)))
    moved = (round_activations(seen.kept) - seen.kept) @ layer.weight()
    noise = float(np.sum(np.square(moved, dtype=np.float64))) / signal if signal else 0.0
    return error >= WORTH_GPTQ * noise
