"""The stage of a compile that settles a quantisation plan: recovery, search, and what to tell.

It comes after a plan is made and before it is carried out:

    settled = settle_plan(QuantizedSubject(model, plan, ranges, build), settings, ...)
    -> settled.plan goes into the artifact; settled.entry into the manifest
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.backends.base import Payload
from leptonc.compiler.accuracy.costs import Measured, binding, cost_table, layer_table, search_plan
from leptonc.compiler.accuracy.search import MOST_EVALUATIONS, Evaluation, SearchResult
from leptonc.compiler.accuracy.search_state import SearchState
from leptonc.compiler.accuracy.yardstick import Yardstick
from leptonc.compiler.calibration.held_samples import CalibrationSamples
from leptonc.compiler.console.progress import Stages
from leptonc.compiler.errors import GateError
from leptonc.compiler.measure.layer_seconds import estimated_seconds, layer_seconds
from leptonc.compiler.plan_errors import plan_errors
from leptonc.compiler.quantization.weight_rounding import round_weights
from leptonc.compiler.running.graph_runner import node_seconds
from leptonc.compiler.settings.goals import Goal
from leptonc.compiler.sources.source import Source
from leptonc.compiler.verification.trials import Trial
from leptonc.passes.graph.fingerprint import fingerprint
from leptonc.passes.quantize.plan import QuantizationPlan, find_layers
from leptonc.passes.ranges.table import Ranges


@dataclass(frozen=True, eq=False)
class QuantizedSubject:
    """A float graph with the plan to quantise it.

    Attributes:
        model: The float graph that the plan is for.
        plan: How its layers are quantised.
        ranges: For static layers; None where there are none.
        build: Makes the engine's graph of a copy of `model` under a plan; under a plan without
            choices the float graph.
        engine: What the measurements depend on beside the graph: target and versions.
        timed: Whether what `build` makes is what runs later, so that its times mean something.
            Otherwise the multiplications of a layer stand for them.
    """

    model: ir.Model
    plan: QuantizationPlan
    ranges: Ranges | None
    build: Callable[[QuantizationPlan], Payload]
    engine: Mapping[str, str]
    timed: bool = True


@dataclass(frozen=True, eq=False)
class Settled:
    """What became of a plan.

    Attributes:
        plan: To be carried out.
        entry: For the manifest: each layer with what is known of it, the goals, the search.
        search: How the plan was found; None without goals.
    """

    plan: QuantizationPlan
    entry: dict[str, Any]
    search: SearchResult | None = None

    def joined(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return what else is known of the quantisation together with the entry."""
        own = {str(row["layer"]): row for row in self.entry["layers"]}
        layers = [{**row, **own[str(row["layer"])]} for row in about["layers"]]
        return {**about, **self.entry, "layers": layers}

    @property
    def missed(self) -> bool:
        """Whether there were goals, and no plan reaches them."""
        return self.search is not None and not self.search.reached


@dataclass(frozen=True)
class AccuracyOptions:
    """What to do about accuracy.

    Attributes:
        goals: What the search keeps; without goals there is no search.
        recovery: Smooth activations and round weights carefully.
        measure: Measure each layer also without goals.
        state: Where the search keeps what it has measured.
    """

    goals: tuple[Goal, ...]
    recovery: bool
    measure: bool
    state: Path


def settle_plan(
    subject: QuantizedSubject,
    options: AccuracyOptions,
    source: Source,
    trials: Sequence[Trial],
    samples: CalibrationSamples | None,
    *,
    stages: Stages,
) -> Settled:
    """Win accuracy back, and find the fastest plan that keeps the goals.

    Args:
        subject: The graph and its plan.
        options: What to do.
        source: The model, for its evaluation and its right answers.
        trials: Of the verification.
        samples: Calibration data; None leaves recovery out, and measures on the trials' inputs.
        stages: Shows and times what is done.
    """
    work = _Work(subject, options, stages)
    # First of all, because it finds out whether the goals mean anything.
    seen = samples or CalibrationSamples(tuple(trial.inputs for trial in trials))
    yardstick = None
    if options.goals:
        with stages.stage("baseline", "measure the source by the goals"):
            yardstick = Yardstick.of(options.goals, source, trials, seen.each)
    in_float: Mapping[str, float] = {}
    if options.goals or options.measure:
        with stages.stage("layers", "time each layer in float"):
            in_float = work.seconds(QuantizationPlan(()), trials[0].inputs)
    plan = subject.plan
    if options.recovery and samples is not None:
        with stages.stage("round", "round weights by their outputs"):
            plan = round_weights(subject.model, plan, samples)
    if not options.goals and not options.measure:
        return Settled(plan, work.entry(plan, None))
    with stages.stage("sensitivity", "measure what each layer costs"):
        measured = work.measured(plan, in_float, trials[0].inputs, seen)
    if yardstick is None:
        return Settled(plan, work.entry(plan, measured))
    with stages.stage("search", "search for the fastest that keeps the goals"):
        found, result = work.search(plan, measured, yardstick, seen)
    return Settled(found, work.entry(found, measured, result), result)


class _Work:
    """What the steps of a settlement share."""

    def __init__(self, subject: QuantizedSubject, options: AccuracyOptions, stages: Stages) -> None:
        self._subject = subject
        self._options = options
        self._stages = stages
        self._layers = find_layers(subject.model)

    def seconds(
        self, plan: QuantizationPlan, inputs: Mapping[str, np.ndarray]
    ) -> Mapping[str, float]:
        """Return the seconds of each layer in the graph of a plan, or an estimate of them."""
        if not self._subject.timed:
            return estimated_seconds(self._subject.model, plan)
        payload = self._subject.build(plan)
        return layer_seconds(payload.model(), self._layers, node_seconds(payload, inputs))

    def measured(
        self,
        plan: QuantizationPlan,
        in_float: Mapping[str, float],
        inputs: Mapping[str, np.ndarray],
        samples: CalibrationSamples,
    ) -> Measured:
        subject = self._subject
        errors = plan_errors(subject.model, plan, subject.ranges, samples.each)
        return Measured(errors, in_float, self.seconds(plan, inputs))

    def search(
        self,
        plan: QuantizationPlan,
        measured: Measured,
        yardstick: Yardstick,
        samples: CalibrationSamples,
    ) -> tuple[QuantizationPlan, SearchResult]:
        bound = binding(
            {
                "graph": asdict(fingerprint(self._subject.model)),
                "plan": plan.to_json(),
                "goals": [goal.text for goal in self._options.goals],
                "samples": [digest.hex() for digest in samples.digests],
                "source": yardstick.source.fingerprint,
                "engine": dict(self._subject.engine),
            }
        )
        state = SearchState.open(self._options.state, bound)
        self._tell_resumed(state)
        found = search_plan(
            plan,
            self._subject.build,
            yardstick,
            state,
            lambda: measured.costs(plan),
            report=self._tell,
        )
        if found[1].reached:
            state.remove()
        return found

    def entry(
        self,
        plan: QuantizationPlan,
        measured: Measured | None,
        result: SearchResult | None = None,
    ) -> dict[str, Any]:
        """Return what the manifest keeps."""
        entry: dict[str, Any] = {"layers": layer_table(plan, self._layers, measured)}
        if measured is not None:
            entry["latency"] = "measured" if self._subject.timed else "estimated"
        if result is not None:
            entry["goals"] = [goal.text for goal in self._options.goals]
            entry["reached"] = result.reached
            entry["figures"] = _finite(result.best.figures)
            entry["evaluations"] = len(result.evaluations)
        return entry

    def _tell_resumed(self, state: SearchState) -> None:
        if self._stages.console is None:
            return
        if state.evaluations:
            self._stages.console.print(
                f"  going on with the search in {state.path}: "
                f"{len(state.evaluations)} evaluations are known"
            )
        elif state.path.exists():
            self._stages.console.print(
                f"  {state.path} is the state of another search, and is replaced"
            )

    def _tell(self, done: int, evaluation: Evaluation) -> None:
        if self._stages.console is None:
            return
        figures = ", ".join(f"{name}: {value:.5g}" for name, value in evaluation.figures.items())
        kept = "kept" if evaluation.keeps else "missed"
        self._stages.console.print(
            f"  evaluation {done} of at most {MOST_EVALUATIONS}: "
            f"{len(evaluation.floats)} layers in float, {figures} ({kept})",
            highlight=False,
        )


def best_effort_path(output: Path) -> Path:
    """Return where the best candidate goes when none keeps the goals."""
    return output.with_name(f"{output.stem}.best-effort{output.suffix}")


def goals_missed(settled: Settled, output: Path) -> GateError:
    """Return the error for goals that no plan reaches, with what each layer costs."""
    assert settled.search is not None
    best = settled.search.best
    figures = "; ".join(f"{goal}: {value:.5g} at best" for goal, value in best.figures.items())
    table = "\n    ".join(cost_table(settled.search))
    return GateError(
        f"no mix of quantised and float layers keeps the goals: {figures}\n    {table}",
        where=f"{output} was not written; the best one is {best_effort_path(output)}",
        fix="lower the goal, give more calibration data, or try another --quantization",
    )


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {
        name: float(f"{value:.6g}") if np.isfinite(value) else None
        for name, value in sorted(figures.items())
    }
