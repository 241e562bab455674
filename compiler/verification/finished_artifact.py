"""Check a finished artifact again: its hashes, that it loads, and its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from leptonc.compiler.errors import VerificationError
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.verification.record import FORMAT
from leptonc.runtime import load

if TYPE_CHECKING:
    from leptonc.compiler.sources.source import Source
    from leptonc.compiler.verification.trials import Trial, TrialResult


@dataclass(frozen=True)
class Recheck:
    """What was checked.

    Attributes:
        artifact: The file.
        digest: Of the artifact.
        variant: The variant that was loaded.
        device: Where it runs.
        others: The variants that were not.
        machine: What it ran on, for the record.
        tolerance: What it was compared with.
        compared: Whether its answers were compared with a source.
        same_source: Whether the source is the one it was compiled from; None without one.
        fingerprint: Of the source that it was compared with; None without one.
        results: How each trial compared.
    """

    artifact: Path
    digest: str
    variant: str
    device: str
    others: tuple[str, ...]
    machine: Mapping[str, object]
    tolerance: Tolerance
    compared: bool
    same_source: bool | None
    fingerprint: str | None
    results: tuple[TrialResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the one object that `--json` prints."""
        return {
            "artifact": str(self.artifact),
            "hashes": "ok",
            "digest": self.digest,
            "variant": self.variant,
            "not_loaded": list(self.others),
            "compared": self.compared,
            "same_source": self.same_source,
            "trials": [result.to_json() for result in self.results],
        }

    def to_record(self) -> dict[str, Any]:
        """Return what `--record` writes; the same for the same result on the same machine."""
        return {
            "format": FORMAT,
            "artifact": self.digest,
            "variant": self.variant,
            "device": self.device,
            "machine": dict(self.machine),
            "compared": self.compared,
            "source": {"fingerprint": self.fingerprint, "same": self.same_source},
            "tolerance": {"sqnr_db": self.tolerance.sqnr_db, "relative": self.tolerance.relative},
            "trials": [result.to_json() for result in self.results],
        }

    def render(self, console: Console) -> None:
        """Print what was checked, and what was not."""
        console.print(f"{self.artifact}: every hash is right; {self.variant} loads", markup=False)
        if self.others:
            left = ", ".join(self.others)
            console.print(f"not loaded: {left} (choose with --variant)", markup=False)
        if not self.compared:
            console.print("its answers were not compared: give the source to do that")
            return
        if not self.same_source:
            console.print("the source is not the one it was compiled from (fingerprints differ)")
        for result in self.results:
            sizes = " ".join(f"{name}={size}" for name, size in result.sizes.items())
            for error in result.errors:
                sqnr = "equal" if error.sqnr_db is None else f"{error.sqnr_db:.1f} dB"
                console.print(f"  {sizes or 'static'}: {error.output} {sqnr}", markup=False)


def recheck(
    artifact: Path,
    source: str | None,
    tolerance: str | None,
    *,
    device: str = "auto",
    variant: str | None = None,
    inputs: Path | None = None,
    debug: bool = False,
) -> Recheck:
    """Verify `artifact`, against `source` when it is given.

    Args:
        artifact: The file.
        source: What it was compiled from.
        tolerance: As `Tolerance.parse` reads it, None for that of the variant's precision.
        device: "cpu", "gpu", or "auto" for the first that works.
        variant: The variant to load and no other, or None.
        inputs: Example inputs as .npz.
        debug: Show what libraries print.

    Raises:
        ArtifactError: The file is damaged or not an artifact.
        EnvironmentProblem: Nothing in it loads on this machine.
        VerificationError: An answer differs; the error names the first differing node.
    """
    loaded = _load(artifact, tolerance, device, variant)
    if source is None:
        return loaded
    from leptonc.compiler.console.progress import Steps
    from leptonc.compiler.sources.opening import open_source
    from leptonc.compiler.verification.trials import (
        reference_trials,
        require_repeatable,
        run_trials,
    )

    steps = Steps(debug=debug)
    with steps.step("load", "load the source"):
        opened = open_source(source, inputs=inputs)
    with steps.step("reference", "run the source"):
        trials = reference_trials(opened)
    results = run_trials(
        str(artifact), trials, loaded.tolerance, device=loaded.device, variant=loaded.variant
    )
    same = loaded.fingerprint == opened.fingerprint
    for trial, result in zip(trials, results, strict=True):
        if not result.passed:
            if not same:
                raise _mixed_up(loaded, opened, open_source(source, inputs=inputs), result)
            with steps.step("diagnose", "look for the first difference"):
                require_repeatable(opened, trials[0], loaded.tolerance)
                raise _explain(loaded, opened, trial, result)
    return replace(
        loaded,
        compared=True,
        same_source=same,
        fingerprint=opened.fingerprint,
        results=results,
    )


def _mixed_up(
    loaded: Recheck, source: Source, again: Source, result: TrialResult
) -> VerificationError:
    """Say that another source was given, which no node of the artifact is to blame for."""
    differs = next(error for error in result.errors if error.problem)
    what = f"output {differs.output!r} differs: {differs.problem}"
    if source.fingerprint != again.fingerprint:
        return VerificationError(
            f"the source has other weights each time it is opened, so {what}",
            where=str(loaded.artifact),
            fix="make build() give the same weights each time: load them, or begin with "
            "torch.manual_seed(0); then compile it again",
        )
    return VerificationError(
        f"this is not the source that the artifact was compiled from (fingerprints differ), and {what}",
        where=str(loaded.artifact),
        fix="give the source that it was compiled from, or compile this one",
    )


def _load(artifact: Path, tolerance: str | None, device: str, variant: str | None) -> Recheck:
    """Check every hash and load; what is returned has compared nothing yet."""
    from leptonc.compiler.machines.target_machine import this_machine

    with load(artifact, device=device, variant=variant) as session:
        entries = {entry["name"]: entry for entry in session.manifest["variants"]}
        chosen = entries[session.variant]
        precision = chosen["precision"]
        return Recheck(
            artifact,
            session.digest,
            session.variant,
            chosen["device"],
            tuple(name for name in entries if name != session.variant),
            this_machine().to_json(),
            Tolerance.of(precision) if tolerance is None else Tolerance.parse(tolerance, precision),
            compared=False,
            same_source=None,
            fingerprint=session.manifest["source"]["fingerprint"],
            results=(),
        )


def _explain(
    loaded: Recheck, source: Source, trial: Trial, result: TrialResult
) -> VerificationError:
    """Export the source again and look for the node in the artifact's own graph.

    A plan has no nodes to look at: the error then names the outputs that differ.
    """
    from leptonc.backends.unpack import unpack

    artifact, tolerance = loaded.artifact, loaded.tolerance
    graphs = unpack(artifact)
    if loaded.variant not in graphs:
        wrong = "; ".join(
            f"{error.output}: {error.problem}" for error in result.errors if error.problem
        )
        return VerificationError(
            f"the variant {loaded.variant!r} does not compute what the source computes: {wrong}",
            where=f"{artifact} at {dict(trial.sizes) or 'its static shape'}",
            fix="compile it again with a higher precision, or give a wider --tolerance",
        )
    from functools import partial

    import onnx_ir as ir

    from leptonc.compiler.export.onnx_export import export
    from leptonc.compiler.running.engine import PLATFORM
    from leptonc.compiler.verification.blame import Suspects, verification_failed
    from leptonc.passes import optimize

    exported = export(source, list(trial.expected))
    model = exported.model if source.graph is None else exported.model.clone()
    optimize(model, target=PLATFORM)
    lowered = tuple((name, partial(ir.Model.clone, graph)) for name, graph in graphs.items())
    suspects = Suspects(source, exported, model, lowered, tolerance)
    return verification_failed(trial, result, suspects)
