"""Rewrites an exported graph for its target: fused, and in the precision that was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from leptonc.backends.base import Target
from leptonc.compiler.accuracy.search import SearchResult
from leptonc.compiler.accuracy.stage import settle
from leptonc.compiler.job import Job
from leptonc.compiler.manifest import quantization_entry
from leptonc.compiler.quantization.float_graph import float_graph, quantized
from leptonc.compiler.settings.compile_settings import QUANTIZED
from leptonc.passes.base import PassStats
from leptonc.passes.lower.standard_operators import STANDARD_OPERATORS
from leptonc.passes.pipeline import Context, run_passes
from leptonc.passes.precision.half_types import HALF_TYPES
from leptonc.passes.precision.precision import Precision
from leptonc.passes.schedule import LOWER, MERGE, optimize, summary


@dataclass(frozen=True, eq=False)
class Rewritten:
    """A graph that is ready to be built.

    Attributes:
        target: What it is for.
        model: The graph.
        passes: What each pass did to it.
        quantization: What the manifest says of its layers; empty where nothing is quantised.
        missed: The search that found no mix of layers that keeps the goals, if there was one.
    """

    target: Target
    model: ir.Model
    passes: tuple[PassStats, ...]
    quantization: dict[str, Any] = field(default_factory=dict)
    missed: SearchResult | None = None


def rewrite(job: Job, model: ir.Model, before: tuple[PassStats, ...] = ()) -> Rewritten:
    """Rewrite `model`, as exported, in place for the target of `job`.

    Args:
        job: What to do, and what for.
        model: The graph.
        before: What was done to it already.
    """
    if job.target.precision not in QUANTIZED:
        with job.steps.step("optimize", "rewrite the graph"):
            return Rewritten(job.target, model, _lowered(job, model, before))
    settled = settle(job, float_graph(job, model))
    with job.steps.step("quantize", "quantise"):
        made, done = quantized(settled.floats, job.target)
    search = settled.search
    return Rewritten(
        job.target,
        made,
        (*before, *settled.floats.passes, *done),
        quantization_entry(job.settings, settled),
        None if search is None or search.reached else search,
    )


def _lowered(job: Job, model: ir.Model, before: tuple[PassStats, ...]) -> tuple[PassStats, ...]:
    """Rewrite in place in floats, and return all that was done.

    In half the width the graph is first made whole, in float32: rules that know normalisation
    and attention then see no casts between their nodes. What only the engine has comes after.
    """
    target, plugins = job.target, job.plugins
    half = target.precision in HALF_TYPES
    if half or target.row.standard_operators:
        before = (*before, *run_passes(model, (STANDARD_OPERATORS,)))
    upto = MERGE if half else LOWER
    stats = (*before, *optimize(model, target=target.platform, plugins=plugins, upto=upto))
    if not half:
        return stats
    narrowed = run_passes(model, (Precision(target.precision),), Context(target.platform))
    cleaned = optimize(model, target=target.platform, plugins=plugins)
    return summary((*stats, *narrowed, *cleaned))
