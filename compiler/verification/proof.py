"""What shows that a compiled artifact is right.

A variant whose engine runs on this machine is proven as a service would use it: the runtime loads
the artifact in a process of its own. Where the engine cannot run here, the graph that it was
given is run on ONNX Runtime's CPU instead, half-width values rounded where the engine rounds
them; the evidence says that the engine itself has not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leptonc.backends.base import Payload
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.verification.blame import Suspects, verification_failed
from leptonc.compiler.verification.comparison import compare_outputs
from leptonc.compiler.verification.trials import Trial, TrialResult, require_repeatable, run_trials
from leptonc.passes.precision.emulation import emulate_half


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
        run = GraphRunner(emulate_half(payload.model()))
        results = tuple(
            TrialResult(
                trial.sizes,
                compare_outputs(trial.expected, run(trial.inputs), suspects.tolerance),
            )
            for trial in trials
        )
    for trial, result in zip(trials, results, strict=True):
        if not result.passed:
            require_repeatable(suspects.source, trials[0], Tolerance())
            raise verification_failed(trial, result, suspects)
    return Proof(str(payload.variant["name"]), payload.not_run, results)
