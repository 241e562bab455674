"""Check a finished artifact again: its hashes, that it loads, and its answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from leptonc.compiler.compare import Tolerance
from leptonc.compiler.errors import VerificationError
from leptonc.runtime import load

if TYPE_CHECKING:
    from leptonc.compiler.source import Source
    from leptonc.compiler.verify import Trial, TrialResult


@dataclass(frozen=True)
class Recheck:
    """What was checked.

    Attributes:
        artifact: The file.
        variant: The variant that this machine loads.
        compared: Whether its answers were compared with a source.
        same_source: Whether the source is the one it was compiled from; None without one.
        results: How each trial compared.
    """

    artifact: Path
    variant: str
    compared: bool
    same_source: bool | None
    results: tuple[TrialResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the one object that `--json` prints."""
        return {
            "artifact": str(self.artifact),
            "hashes": "ok",
            "variant": self.variant,
            "compared": self.compared,
            "same_source": self.same_source,
            "trials": [result.to_json() for result in self.results],
        }

    def render(self, console: Console) -> None:
        """Print what was checked, and what was not."""
        console.print(f"{self.artifact}: every hash is right; {self.variant} loads", markup=False)
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
    tolerance: Tolerance,
    *,
    inputs: Path | None = None,
    debug: bool = False,
) -> Recheck:
    """Verify `artifact`, against `source` when it is given.

    Raises:
        ArtifactError: The file is damaged or not an artifact.
        VerificationError: An answer differs; the error names the first differing node.
    """
    with load(artifact) as session:
        variant = session.variant
        fingerprint = session.manifest["source"]["fingerprint"]
    if source is None:
        return Recheck(artifact, variant, compared=False, same_source=None, results=())
    from leptonc.compiler.probe import require_repeatable
    from leptonc.compiler.source import open_source
    from leptonc.compiler.stages import Stages
    from leptonc.compiler.verify import reference_trials, run_trials

    stages = Stages(debug=debug)
    with stages.stage("load", "load the source"):
        opened = open_source(source, inputs=inputs)
    with stages.stage("reference", "run the source"):
        trials = reference_trials(opened)
    results = run_trials(str(artifact), trials, tolerance)
    for trial, result in zip(trials, results, strict=True):
        if not result.passed:
            with stages.stage("diagnose", "look for the first difference"):
                require_repeatable(opened, trials[0], tolerance)
                error = _explain(artifact, opened, trial, result, tolerance)
            if fingerprint != opened.fingerprint:
                error.fix = "this is not the source it was compiled from: fingerprints differ"
            raise error
    return Recheck(
        artifact,
        variant,
        compared=True,
        same_source=fingerprint == opened.fingerprint,
        results=results,
    )


def _explain(
    artifact: Path, source: Source, trial: Trial, result: TrialResult, tolerance: Tolerance
) -> VerificationError:
    """Export the source again and look for the node in the artifact's own graph."""
    from functools import partial

    import onnx_ir as ir

    from leptonc.backends.unpack import unpack
    from leptonc.compiler.diagnose import Suspects, verification_failed
    from leptonc.compiler.export import export
    from leptonc.passes import optimize

    exported = export(source, list(trial.expected))
    model = exported.model if source.graph is None else exported.model.clone()
    optimize(model, target="ort-cpu")
    lowered = tuple(
        (name, partial(ir.Model.clone, graph)) for name, graph in unpack(artifact).items()
    )
    suspects = Suspects(source, exported, model, lowered, tolerance)
    return verification_failed(trial, result, suspects)
