"""The stage of a compile that settles how a graph is quantised: recovery, then the search.

It comes after a plan is made and before it is carried out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from leptonc.compiler.accuracy.candidates import Candidates
from leptonc.compiler.accuracy.costs import Measured
from leptonc.compiler.accuracy.search import MOST_EVALUATIONS, Evaluation, SearchResult, search
from leptonc.compiler.accuracy.search_state import SearchState
from leptonc.compiler.accuracy.yardstick import Yardstick
from leptonc.compiler.calibration.held_samples import CalibrationSamples, read_samples
from leptonc.compiler.console.progress import Steps
from leptonc.compiler.job import Job
from leptonc.compiler.quantization.float_graph import FloatGraph
from leptonc.compiler.quantization.layer_noise import plan_errors
from leptonc.compiler.quantization.recovery import recovered
from leptonc.compiler.quantization.weight_rounding import round_weights
from leptonc.compiler.running.graph_runner import payload_runner
from leptonc.passes.graph.fingerprint import fingerprint
from leptonc.passes.quantize.plan import QuantizationPlan

# What a layer is kept in float for, as --explain shows it.
KEPT_BY_SEARCH = "kept in float by the accuracy search"


@dataclass(frozen=True, eq=False)
class Settled:
    """How a graph will be quantised, and what that is based on.

    Attributes:
        floats: The float graph as it is now, with the plan to carry out.
        measured: What is known of its layers; None where nothing was measured.
        timed: Whether the times are those of the engine, and not estimates.
        search: How the plan was found; None without goals.
    """

    floats: FloatGraph
    measured: Measured | None = None
    timed: bool = True
    search: SearchResult | None = None


def settle(job: Job, floats: FloatGraph) -> Settled:
    """Win accuracy back, and find the fastest plan that keeps the goals.

    Args:
        job: With the goals. Without calibration data nothing is won back, and layers are measured
            on the inputs of the trials.
        floats: The float graph with its plan; smoothing changes the graph in place.
    """
    steps, goals, recovery = job.steps, job.settings.goals, job.settings.recovery
    samples = None
    # Without goals the data is read for recovery alone, and a table may stand for it.
    if job.source.calibration_data is not None and (recovery or goals):
        with steps.step("samples", "read calibration samples"):
            samples = read_samples(floats.model, job.source)
    if recovery and samples is not None:
        floats = recovered(floats, samples, steps)
    candidates, inputs = Candidates(job, floats), job.trials[0].inputs
    seen = samples or CalibrationSamples(tuple(trial.inputs for trial in job.trials))
    yardstick = None
    # Before anything is measured, because it finds out whether the goals mean anything.
    if goals:
        with steps.step("baseline", "measure the source by the goals"):
            yardstick = Yardstick.of(goals, job.source, job.trials, seen.each)
    in_float: Mapping[str, float] = {}
    if goals or job.measure:
        with steps.step("layers", "time each layer in float"):
            in_float = candidates.seconds(QuantizationPlan(()), inputs)
    if recovery and samples is not None:
        with steps.step("round", "round weights by their outputs"):
            floats = replace(floats, plan=round_weights(floats.model, floats.plan, samples))
    if not goals and not job.measure:
        return Settled(floats)
    with steps.step("sensitivity", "measure what each layer costs"):
        errors = plan_errors(floats.model, floats.plan, floats.ranges, seen.each)
        measured = Measured(errors, in_float, candidates.seconds(floats.plan, inputs))
    if yardstick is None:
        return Settled(floats, measured, candidates.timed)
    with steps.step("search", "search for the fastest that keeps the goals"):
        state = SearchState.open(_state_path(job), _bound_to(job, floats, candidates, seen))
        _tell_resumed(steps, state)
        if not state.costs:
            state.keep_costs(measured.costs(floats.plan))
        result = _searched(floats.plan, candidates, yardstick, state, steps)
    plan = _in_float(floats.plan, result.best.floats)
    return Settled(replace(floats, plan=plan), measured, candidates.timed, result)


def _searched(
    plan: QuantizationPlan,
    candidates: Candidates,
    yardstick: Yardstick,
    state: SearchState,
    steps: Steps,
) -> SearchResult:
    """Search, keeping each measurement in `state`; goals may not be reached."""
    done = 0

    def evaluate(floats: frozenset[str]) -> Evaluation:
        nonlocal done
        found = state.find(floats)
        if found is None:
            payload = candidates.build(_in_float(plan, floats))
            found = yardstick.measure(payload_runner(payload), floats)
            state.keep(found)
        done += 1
        _tell(steps, done, found)
        return found

    result = search(state.costs, evaluate)
    if result.reached:
        state.remove()
    return result


def _in_float(plan: QuantizationPlan, floats: frozenset[str]) -> QuantizationPlan:
    return plan.in_float(sorted(floats), KEPT_BY_SEARCH)


def _state_path(job: Job) -> Path:
    """Return where a search keeps its measurements: each of several targets has its own file."""
    own = f".{job.target.name}" if len(job.settings.target) > 1 else ""
    output = job.settings.output
    return output.with_name(f"{output.name}{own}.search.json")


def _bound_to(
    job: Job, floats: FloatGraph, candidates: Candidates, samples: CalibrationSamples
) -> str:
    """Return the digest of all that the measurements of a search depend on."""
    parts = {
        "graph": asdict(fingerprint(floats.model)),
        "plan": floats.plan.to_json(),
        "goals": [goal.text for goal in job.settings.goals],
        "samples": [digest.hex() for digest in samples.digests],
        "source": job.source.fingerprint,
        "engine": candidates.depend_on(),
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _tell_resumed(steps: Steps, state: SearchState) -> None:
    if steps.console is None:
        return
    if state.evaluations:
        steps.console.print(
            f"  going on with the search in {state.path}: "
            f"{len(state.evaluations)} evaluations are known"
        )
    elif state.path.exists():
        steps.console.print(f"  {state.path} is the state of another search, and is replaced")


def _tell(steps: Steps, done: int, evaluation: Evaluation) -> None:
    if steps.console is None:
        return
    figures = ", ".join(f"{name}: {value:.5g}" for name, value in evaluation.figures.items())
    kept = "kept" if evaluation.keeps else "missed"
    steps.console.print(
        f"  evaluation {done} of at most {MOST_EVALUATIONS}: "
        f"{len(evaluation.floats)} layers in float, {figures} ({kept})",
        highlight=False,
    )
