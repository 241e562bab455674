"""Measure what the gates are about, and refuse an artifact that breaches one.

A breach is exit code 7: the artifact is not given its name.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from leptonc.compiler.errors import GateError, UsageError, VerificationError
from leptonc.compiler.measure.cold_start import start
from leptonc.compiler.settings.gates import Gate
from leptonc.compiler.verification.trials import TrialResult
from leptonc.runtime.arrays import Arrays, save_arrays
from leptonc.runtime.errors import EnvironmentProblem

WARM_RUNS = 20


def check_gates(
    gates: Sequence[Gate],
    artifact: str,
    inputs: Arrays,
    results: Sequence[TrialResult],
    *,
    name: str,
    not_run: str | None = None,
) -> None:
    """Measure what the gates need and compare.

    Args:
        gates: The budgets.
        artifact: Where the finished file can be read.
        inputs: The example inputs.
        results: How the trials compared.
        name: The artifact's final name, for the message.
        not_run: Why the artifact cannot run on this machine, or None when it can.

    Raises:
        GateError: One or more gates are breached; all of them are named.
        UsageError: A gate on SQNR without verification.
        EnvironmentProblem: A gate on time, and the engine cannot run here.
    """
    if not gates:
        return
    values: dict[str, float] = {"size": float(Path(artifact).stat().st_size)}
    if any(gate.name == "sqnr" for gate in gates):
        values["sqnr"] = _lowest_sqnr(results)
    timed = [gate.text for gate in gates if gate.name in {"load", "latency"}]
    if timed and not_run is not None:
        raise EnvironmentProblem(
            f"the gate {timed[0]} cannot be measured on this machine: {not_run}",
            where=f"{name}, which was not written",
            fix="leave that gate out here, and check it where the artifact will run",
        )
    if timed:
        values |= _measured(artifact, inputs)
    breaches = [gate.breach(values[gate.name]) for gate in gates]
    told = [breach for breach in breaches if breach is not None]
    if told:
        raise GateError(
            "; ".join(told),
            where=f"{name}, which was not written",
            fix="change the model, the precision or the gate",
        )


def _lowest_sqnr(results: Sequence[TrialResult]) -> float:
    if not results:
        raise UsageError(
            "a gate on sqnr needs the verification", fix="leave out --no-verify, or the gate"
        )
    errors = [error.sqnr_db for result in results for error in result.errors]
    return min((error for error in errors if error is not None), default=float("inf"))


def _measured(artifact: str, inputs: Arrays) -> dict[str, float]:
    """Load and run the artifact in a new process; return seconds."""
    with tempfile.TemporaryDirectory(prefix="leptonc-gate-") as scratch:
        feed = Path(scratch) / "inputs.npz"
        save_arrays(feed, inputs)
        done = start(Path(artifact), feed, 0, WARM_RUNS)
    if done.returncode != 0:
        raise VerificationError(
            f"the artifact cannot be measured:\n{done.stderr.strip()}",
            fix="this is a bug in leptonc or in the engine; please report it with this message",
        )
    record = json.loads(done.stdout)
    return {"load": float(record["load_s"]), "latency": float(record["latency_s"])}
