"""Joins the accuracy stage to a compile: what it needs of the settings, the source and the engine."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from leptonc.backends.base import Backend, Payload, Target
from leptonc.compiler.accuracy.stage import (
    AccuracyOptions,
    QuantizedSubject,
    Settled,
    settle_plan,
)
from leptonc.compiler.calibration.held_samples import read_samples
from leptonc.compiler.console.progress import Stages
from leptonc.compiler.quantization.float_graph import FloatGraph, quantized
from leptonc.compiler.quantization.recovery import recovered
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.sources.source import Source
from leptonc.compiler.verification.trials import Trial
from leptonc.passes.quantize.plan import QuantizationPlan

ENGINES = ("onnxruntime", "numpy", "leptonc")


def settle(
    floats: FloatGraph,
    settings: CompileSettings,
    source: Source,
    trials: Sequence[Trial],
    target: Target,
    *,
    backend: Backend,
    folder: Path,
    stages: Stages,
    measure: bool = False,
) -> tuple[FloatGraph, Settled]:
    """Win accuracy back and keep the goals of `settings`.

    Args:
        floats: The float graph with its plan; smoothing changes the graph in place.
        settings: With the goals.
        source: The model; without calibration data nothing is won back.
        trials: Of the verification.
        target: What to build for.
        backend: Builds for it.
        folder: For the weights of candidates; must outlive what is returned.
        stages: Shows and times what is done.
        measure: Measure each layer also where there is no goal.

    Returns:
        The float graph as it is now, and the plan for it.
    """
    samples = None
    # Without goals the data is read for recovery alone, and a table may stand for it.
    if source.calibration_data is not None and (settings.recovery or settings.goals):
        with stages.stage("samples", "read calibration samples"):
            samples = read_samples(floats.model, source)
    if settings.recovery and samples is not None:
        floats = recovered(floats, samples, stages)
    subject = QuantizedSubject(
        floats.model,
        floats.plan,
        floats.ranges,
        _Candidates(floats, target, backend, folder),
        _engine(target),
        timed=target.row.timed,
    )
    options = AccuracyOptions(
        settings.goals,
        settings.recovery,
        measure,
        _state_path(settings, target),
    )
    return floats, settle_plan(subject, options, source, trials, samples, stages=stages)


def _state_path(settings: CompileSettings, target: Target) -> Path:
    """Return where a search keeps its measurements: each of several targets has its own file."""
    own = f".{target.name}" if len(settings.target) > 1 else ""
    return settings.output.with_name(f"{settings.output.name}{own}.search.json")


class _Candidates:
    """Builds graphs of one model under one plan after the other."""

    def __init__(self, floats: FloatGraph, target: Target, backend: Backend, folder: Path) -> None:
        self._floats = floats
        self._target = target
        self._backend = backend
        self._folder = folder
        self._numbers = itertools.count()

    def __call__(self, plan: QuantizationPlan) -> Payload:
        model, _ = quantized(self._floats, plan, self._target)
        if not self._target.row.timed:
            # It is built once, when the plan is settled; until then its graph with Q and DQ runs
            # on the CPU, as it is proven there.
            return Payload({"options": {}}, b"", (), {}, model)
        folder = self._folder / f"candidate-{self._target.name}-{next(self._numbers)}"
        folder.mkdir()
        return self._backend.build(model, self._target, folder)


def _engine(target: Target) -> Mapping[str, str]:
    versions = {name: metadata.version(name) for name in ENGINES}
    return {**versions, "target": target.name, "require": target.require}
