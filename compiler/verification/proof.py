"""What shows that a compiled artifact is right, and what the manifest says about it.

A variant whose engine runs on this machine is proven as a service would use it: the runtime loads
the artifact in a process of its own. Where the engine cannot run here, the graph that it was
given is run on ONNX Runtime's CPU instead, half-width values rounded where the engine rounds
them; the evidence says that the engine itself has not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leptonc.backends.base import Payload
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.sources.source import Source
from leptonc.compiler.verification.blame import Suspects, verification_failed
from leptonc.compiler.verification.comparison import compare_outputs
from leptonc.compiler.verification.shape_probe import require_repeatable
from leptonc.compiler.verification.trials import Trial, TrialResult, run_trials
from leptonc.passes.precision.emulation import emulate_half

BY_RUNTIME = "the artifact, loaded by the runtime"
BY_GRAPH = (
    "the graph that the engine was given, on ONNX Runtime's CPU in float32, rounded where the "
    "engine rounds"
)


@dataclass(frozen=True)
class Proof:
    """How one variant compared with the source.

    Attributes:
        variant: Its name.
        not_run: Why its engine has not run here, or None when it has.
        results: How each trial compared.
    """

    variant: str
    not_run: str | None
    results: tuple[TrialResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the manifest."""
        return {
            "variant": self.variant,
            "engine_ran": self.not_run is None,
            "reason": self.not_run,
            "checked": BY_GRAPH if self.not_run else BY_RUNTIME,
            "trials": [result.to_json() for result in self.results],
        }


def prove(artifact: str, payload: Payload, trials: Sequence[Trial], suspects: Suspects) -> Proof:
    """Compare a variant with the right answers.

    Args:
        artifact: Where the finished file can be read.
        payload: The variant.
        trials: Inputs and right answers.
        suspects: Who may be to blame.

    Raises:
        VerificationError: An answer differs; the error names the first node that does.
    """
    if payload.not_run is None:
        device = str(payload.variant["device"])
        results = run_trials(artifact, trials, suspects.tolerance, device=device)
    else:
        results = run_graph(payload, trials, suspects.tolerance)
    for trial, result in zip(trials, results, strict=True):
        if not result.passed:
            require_repeatable(suspects.source, trials[0], Tolerance())
            raise verification_failed(trial, result, suspects)
    return Proof(str(payload.variant["name"]), payload.not_run, results)


def run_graph(
    payload: Payload, trials: Sequence[Trial], tolerance: Tolerance
) -> tuple[TrialResult, ...]:
    """Run the graph of a payload on ONNX Runtime's CPU, and compare every output."""
    runner = GraphRunner(emulate_half(payload.model()))
    return tuple(
        TrialResult(trial.sizes, compare_outputs(trial.expected, runner(trial.inputs), tolerance))
        for trial in trials
    )


def verification(source: Source, tolerance: Tolerance, proofs: Sequence[Proof]) -> dict[str, Any]:
    """Return the evidence; the first variant's trials stand at the top."""
    reference = (
        "the source graph on ONNX Runtime, unoptimised"
        if source.kind == "onnx"
        else "the source module on PyTorch"
    )
    return {
        "verified": True,
        "reference": reference,
        "tolerance": {"sqnr_db": tolerance.sqnr_db, "relative": tolerance.relative},
        "trials": [result.to_json() for result in proofs[0].results],
        "variants": [proof.to_json() for proof in proofs],
    }
