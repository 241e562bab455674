"""Rewrites an exported graph for its target: fused, and quantised where that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from leptonc.backends.base import Backend, Target
from leptonc.compiler.accuracy_stage import Settled
from leptonc.compiler.quantized import account, float_graph, quantized
from leptonc.compiler.quantized_accuracy import settle
from leptonc.compiler.settings import QUANTIZED, CompileSettings
from leptonc.compiler.source import Source
from leptonc.compiler.stages import Stages
from leptonc.compiler.verify import Trial
from leptonc.passes import optimize
from leptonc.passes.base import PassStats
from leptonc.passes.pipeline import run_passes
from leptonc.passes.plugins import Plugin
from leptonc.passes.simplify import Simplify


@dataclass(frozen=True, eq=False)
class Rewritten:
    """A graph that is ready to be built.

    Attributes:
        model: The graph.
        passes: What led to it.
        about: What the manifest says of its quantisation.
        settled: How its plan was settled; None where nothing is quantised.
    """

    model: ir.Model
    passes: tuple[PassStats, ...]
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
        measure: Measure each quantised layer, for --explain.
    """
    simplified: tuple[PassStats, ...] = ()
    if settings.simplify:
        with stages.stage("simplify", "run onnxsim"):
            simplified = run_passes(model, (Simplify(),))
    if target.precision not in QUANTIZED:
        with stages.stage("optimize", "rewrite the graph"):
            done = optimize(model, target=target.platform, plugins=plugins)
        return Rewritten(model, (*simplified, *done), {})
    floats = float_graph(model, source, settings, target, stages, plugins=plugins)
    settled = settle(
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
    passes = (*simplified, *floats.passes, *settled.passes, *done)
    return Rewritten(made, passes, {"quantization": settled.joined(about)}, settled)
