"""Rewrites an exported graph for its target: fused, and quantised where that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from leptonc.backends.base import Backend, Target
from leptonc.compiler.accuracy.candidates import settle
from leptonc.compiler.accuracy.stage import Settled
from leptonc.compiler.console.progress import Stages
from leptonc.compiler.lowering import Lowered, lower
from leptonc.compiler.quantization.float_graph import account, float_graph, quantized
from leptonc.compiler.settings.compile_settings import QUANTIZED, CompileSettings
from leptonc.compiler.sources.source import Source
from leptonc.compiler.verification.trials import Trial
from leptonc.passes.base import PassStats
from leptonc.passes.plugins import Plugin


@dataclass(frozen=True, eq=False)
class Rewritten:
    """A graph that is ready to be built.

    Attributes:
        lowered: The graph, and what led to it.
        about: What the manifest says of its quantisation; empty where there is none.
        settled: How its plan was settled; None where nothing is quantised.
    """

    lowered: Lowered
    about: dict[str, Any]
    settled: Settled | None = None


def rewrite(
    model: ir.Model,
    source: Source,
    trials: Sequence[Trial],
    settings: CompileSettings,
    target: Target,
    *,
    backend: Backend,
    folder: Path,
    stages: Stages,
    plugins: tuple[Plugin, ...] = (),
    before: tuple[PassStats, ...] = (),
    measure: bool = False,
) -> Rewritten:
    """Rewrite `model` for `target`.

    Args:
        model: As exported; changed in place.
        source: What it was exported from.
        trials: Of the verification.
        settings: What the user asked for.
        target: What to build for.
        backend: Builds candidates of a search.
        folder: For their weights.
        stages: Shows and times what is done.
        plugins: Passes of others.
        before: What was done to `model` already.
        measure: Measure each quantised layer, for --explain.
    """
    if target.precision not in QUANTIZED:
        with stages.stage("optimize", "rewrite the graph"):
            return Rewritten(lower(model, target, plugins, before), {})
    floats = float_graph(model, source, settings, target, stages, plugins=plugins)
    floats, settled = settle(
        floats,
        settings,
        source,
        trials,
        target,
        backend=backend,
        folder=folder,
        stages=stages,
        measure=measure,
    )
    with stages.stage("quantize", "quantise"):
        made, done = quantized(floats, settled.plan, target)
    about = account(settings, floats, settled.plan)
    passes = (*before, *floats.passes, *done)
    lowered = Lowered(target, made, passes)
    return Rewritten(lowered, settled.joined(about), settled)
