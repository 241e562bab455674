"""Makes a float graph easier to round before it is: equalises weights, smooths activations.

Both move factors between the constants of the graph and leave its outputs as they are, bit by bit.
They change what some inner tensors hold, so the ranges of those are observed again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from leptonc.compiler.calibration.held_samples import CalibrationSamples
from leptonc.compiler.console.progress import Steps
from leptonc.compiler.quantization.float_graph import FloatGraph
from leptonc.compiler.quantization.layer_noise import plan_errors
from leptonc.compiler.quantization.weight_rounding import smooth
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.passes.pipeline import run_passes
from leptonc.passes.quantize.layer_matrix import layer_matrix
from leptonc.passes.quantize.methods import STATIC
from leptonc.passes.ranges.observed import Observed
from leptonc.passes.ranges.table import Ranges
from leptonc.passes.ranges.totals import RangeTotals
from leptonc.passes.rescale.channels import LAYERS, find_scalable
from leptonc.passes.rescale.equalize import Equalize

# Equalised weights have to leave less than this part of the noise of all layers.
WORTH_EQUALIZING = 0.9


def recovered(floats: FloatGraph, samples: CalibrationSamples, steps: Steps) -> FloatGraph:
    """Return the graph equalised and smoothed, where that pays, with the ranges of what it holds.

    Args:
        floats: Its graph is smoothed in place.
        samples: What the choices are made on, and what changed tensors are observed over.
        steps: Shows and times what is done.
    """
    if floats.ranges is not None and any(one.method == STATIC for one in floats.plan.choices):
        with steps.step("equalize", "equalise weights"):
            floats = _equalized(floats, samples)
    with steps.step("smooth", "smooth activations"):
        return _smoothed(floats, samples)


def _equalized(floats: FloatGraph, samples: CalibrationSamples) -> FloatGraph:
    """Return the graph with its weights equalised, or as it was when rounding gains too little."""
    assert floats.ranges is not None
    model = floats.model.clone()
    passes = run_passes(model, (Equalize(),))
    if not any(stats.counts for stats in passes):
        return floats
    between = {
        str(tensor.name)
        for each in find_scalable(model)[0]
        if each.source.op_type in LAYERS
        for tensor in each.tensors
    }
    ranges = observed_again(model, between, floats.ranges, samples)
    made = FloatGraph(model, ranges, floats.plan, (*floats.passes, *passes), floats.plugins)
    gains = _noise(made, samples) < WORTH_EQUALIZING * _noise(floats, samples)
    return made if gains else floats


def _noise(floats: FloatGraph, samples: CalibrationSamples) -> float:
    """Return the relative noise of all layers, added up."""
    errors = plan_errors(floats.model, floats.plan, floats.ranges, samples.each)
    return math.fsum(error.relative for error in errors.values())


def _smoothed(floats: FloatGraph, samples: CalibrationSamples) -> FloatGraph:
    before = {str(node.outputs[0].name): _input(node) for node in floats.model.graph}
    tensors = {
        str(tensor.name): {str(each.name) for each in found.tensors}
        for found in find_scalable(floats.model)[0]
        for tensor in found.inputs
    }
    passes, names = smooth(floats.model, floats.plan, samples)
    if not passes:
        return floats
    ranges = floats.ranges
    if ranges is not None:
        changed = {
            _input(node)
            for node in floats.model.graph
            if layer_matrix(node) is not None
            and _input(node) != before.get(str(node.outputs[0].name))
        }
        for name in names:
            changed |= tensors.get(name, set())
        ranges = observed_again(floats.model, changed, ranges, samples)
    return replace(floats, ranges=ranges, passes=(*floats.passes, *passes))


def _input(node: ir.Node) -> str:
    first = node.inputs[0] if node.inputs else None
    return "" if first is None else str(first.name)


def observed_again(
    model: ir.Model, names: Iterable[str], ranges: Ranges, samples: CalibrationSamples
) -> Ranges:
    """Return `ranges` with some tensors as `model` computes them over `samples`.

    Args:
        model: A graph whose outputs are those of the graph of `ranges`.
        names: Inner values of its main graph.
        ranges: Of all other tensors.
        samples: The data.
    """
    inner = {str(value.name) for node in model.graph for value in node.outputs}
    outputs = {str(value.name) for value in model.graph.outputs}
    wanted = sorted(set(names) & inner)
    if not wanted:
        return ranges
    runner = GraphRunner(
        model, extra_outputs=[name for name in wanted if name not in outputs], optimised=True
    )
    totals = RangeTotals(ranges.graph, [Observed(name, None, None) for name in wanted], {})
    for sample in samples.inputs:
        totals.add(runner(sample), bytes(32))
    seen = totals.ranges().tensors
    aliases = {name: of for name, of in ranges.aliases.items() if name not in seen}
    return replace(ranges, tensors={**ranges.tensors, **seen}, aliases=aliases)
