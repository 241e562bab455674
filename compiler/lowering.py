"""The graph of one target: rewritten for its engine, and in the precision that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from leptonc.backends.base import Target
from leptonc.compiler.inspection.passes import record
from leptonc.passes.base import PassStats
from leptonc.passes.lower.standard_operators import STANDARD_OPERATORS
from leptonc.passes.pipeline import Context, run_passes
from leptonc.passes.plugins import Plugin
from leptonc.passes.precision.half_types import HALF_TYPES
from leptonc.passes.precision.precision import Precision
from leptonc.passes.schedule import LOWER, MERGE, optimize, summary


@dataclass(frozen=True)
class Lowered:
    """A graph as the backend of its target gets it.

    Attributes:
        target: What it is for.
        model: The graph.
        passes: What each pass did to it.
    """

    target: Target
    model: ir.Model
    passes: tuple[PassStats, ...]


def lower(
    model: ir.Model, target: Target, plugins: Sequence[Plugin], before: tuple[PassStats, ...] = ()
) -> Lowered:
    """Rewrite `model` in place for `target`.

    In half the width the graph is first made whole, in float32: rules that know normalisation
    and attention then see no casts between their nodes. What only the engine has comes after.

    Args:
        model: The exported graph.
        target: Backend, device and precision.
        plugins: Passes of others.
        before: What was done to `model` already.
    """
    rewritten_for = target.platform
    half = target.precision in HALF_TYPES
    if half or target.backend == "tensorrt":
        before = (*before, *run_passes(model, (STANDARD_OPERATORS,)))
    upto = MERGE if half else LOWER
    stats = (*before, *optimize(model, target=rewritten_for, plugins=plugins, upto=upto))
    if half:
        narrowed = run_passes(model, (Precision(target.precision),), Context(rewritten_for))
        cleaned = optimize(model, target=rewritten_for, plugins=plugins)
        stats = summary((*stats, *narrowed, *cleaned))
    return Lowered(target, model, stats)


def recorded(lowered: Sequence[Lowered]) -> list[dict[str, Any]]:
    """Return the manifest's entries, with the target of each where there are several."""
    if len(lowered) == 1:
        return [record(stats) for stats in lowered[0].passes]
    return [
        {**record(stats), "target": each.target.name} for each in lowered for stats in each.passes
    ]
