"""The whole way from a source to a finished artifact, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from leptonc.backends import find_backend
from leptonc.backends.base import Payload
from leptonc.backends.pack import pack
from leptonc.compiler.accuracy.missed_goals import best_effort_path, goals_missed
from leptonc.compiler.console.progress import Step, Steps, peak_bytes
from leptonc.compiler.job import Job, wanted_plugins
from leptonc.compiler.manifest import Manifest
from leptonc.compiler.release.gates import check_gates
from leptonc.compiler.rewriting import Rewritten, rewrite
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.subject import Subject, open_and_export
from leptonc.compiler.targets import targets_of, with_profiles
from leptonc.compiler.verification.blame import Suspects
from leptonc.compiler.verification.proof import Proof, prove
from leptonc.compiler.verification.trials import TrialResult
from leptonc.compiler.workspace import scratch_folder
from leptonc.passes.base import PassStats
from leptonc.passes.pipeline import run_passes
from leptonc.passes.simplify import Simplify
from leptonc.runtime.artifact.writer import StagedArtifact, stage_artifact


@dataclass(frozen=True)
class CompileResult:
    """What a compile produced.

    Attributes:
        artifact: The finished file.
        bytes: Its size.
        manifest: What it says about itself.
        results: How each trial compared; empty when verification was switched off.
        steps: What was done and how long it took.
        passes: What each pass did.
        peak_bytes: The largest resident size of the compiling process.
        builds: What the build of each variant took, where its engine says so.
    """

    artifact: Path
    bytes: int
    manifest: dict[str, Any]
    results: tuple[TrialResult, ...]
    steps: tuple[Step, ...]
    passes: tuple[PassStats, ...]
    peak_bytes: int
    builds: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return the one object that `--json` prints."""
        return {
            "artifact": str(self.artifact),
            "bytes": self.bytes,
            "variants": [
                {key: variant[key] for key in ("name", "backend", "device", "precision", "demands")}
                for variant in self.manifest["variants"]
            ],
            "verification": self.manifest["evidence"]["verification"],
            "stages": [
                {"name": step.name, "seconds": round(step.seconds, 4)} for step in self.steps
            ],
            "passes": self.manifest["passes"],
            "plugins": self.manifest["plugins"],
            "quantization": self.manifest.get("quantization", {}),
            "fingerprint": self.manifest["source"]["fingerprint"],
            "peak_bytes": self.peak_bytes,
            "builds": {name: dict(figures) for name, figures in self.builds.items()},
        }


def compile_model(
    settings: CompileSettings,
    steps: Steps | None = None,
    on_rewritten: Callable[[Mapping[str, Any]], None] | None = None,
    *,
    measure: bool = False,
) -> CompileResult:
    """Compile `settings.source` into `settings.output`.

    Nothing appears under the final name before the artifact is complete, within its gates
    and, unless verification is off, proven.

    Args:
        settings: What to compile and how.
        steps: Shows and times what is done.
        on_rewritten: Gets the manifest before the artifact is written and proven, so that what
            the passes did can be shown when the proof fails.
        measure: Measure what each quantised layer costs and takes, for the manifest.

    Raises:
        LeptonError: Of the kind that says what is wrong; see the `errors` module of each
            package for the trees.
    """
    steps = steps or Steps()
    with scratch_folder() as folder, stage_artifact(settings.output) as staged:
        subject, jobs = _begin(settings, steps, folder, measure=measure)
        rewritten = _rewrite(jobs, subject.model)
        with steps.step("build", f"build for {', '.join(settings.target)}"):
            payloads = [
                job.backend.build(each.model, job.target, folder, steps.progress)
                for job, each in zip(jobs, rewritten, strict=True)
            ]
        manifest = Manifest(
            subject,
            jobs[0].plugins,
            payloads,
            {each.target.name: each.passes for each in rewritten},
            [each.quantization for each in rewritten],
            settings.accepted,
        )
        if on_rewritten is not None:
            on_rewritten(manifest.to_json())
        models = [each.model for each in rewritten]
        missed = next((each.missed for each in rewritten if each.missed), None)
        if missed is not None:
            best = replace(settings, output=best_effort_path(settings.output), gate=())
            with stage_artifact(best.output) as other:
                _finish(best, steps, manifest, models, other)
            raise goals_missed(missed, settings.output)
        manifest = _finish(settings, steps, manifest, models, staged)
    return CompileResult(
        artifact=settings.output,
        bytes=settings.output.stat().st_size,
        manifest=manifest.to_json(),
        results=_results(manifest.proofs),
        steps=tuple(steps.finished),
        passes=tuple(stats for each in rewritten for stats in each.passes),
        peak_bytes=peak_bytes(),
        builds={
            payload.variant["name"]: payload.figures for payload in payloads if payload.figures
        },
    )


def lowered_graphs(settings: CompileSettings, steps: Steps) -> tuple[Rewritten, ...]:
    """Return the graph of each target as its backend would get it; nothing is built.

    Raises:
        LeptonError: As for `compile_model`.
    """
    with scratch_folder() as folder:
        subject, jobs = _begin(settings, steps, folder)
        return _rewrite(jobs, subject.model)


def _begin(
    settings: CompileSettings, steps: Steps, folder: Path, *, measure: bool = False
) -> tuple[Subject, tuple[Job, ...]]:
    """Open the source, and return what is to be done for each target."""
    # What cannot be built is refused before the source is opened.
    targets = targets_of(settings)
    backends = [find_backend(target) for target in targets]
    plugins = wanted_plugins(settings)
    subject = open_and_export(settings, steps)
    source, trials = subject.source, subject.trials
    return subject, tuple(
        Job(settings, source, trials, target, backend, folder, steps, plugins, measure)
        for target, backend in zip(with_profiles(targets, source), backends, strict=True)
    )


def _rewrite(jobs: Sequence[Job], model: ir.Model) -> tuple[Rewritten, ...]:
    """Rewrite the exported graph for each target; for the last one without a copy."""
    simplified: tuple[PassStats, ...] = ()
    if jobs[0].settings.simplify:
        with jobs[0].steps.step("simplify", "run onnxsim"):
            simplified = run_passes(model, (Simplify(),))
    return tuple(
        rewrite(job, model if job is jobs[-1] else model.clone(), simplified) for job in jobs
    )


def _finish(
    settings: CompileSettings,
    steps: Steps,
    manifest: Manifest,
    models: Sequence[ir.Model],
    staged: StagedArtifact,
) -> Manifest:
    """Write the staged artifact, prove it, check the gates, and give it its name."""
    payloads = manifest.payloads
    with steps.step("write", "write the artifact"):
        sections, variants = pack(payloads)
        manifest = replace(manifest, variants=variants)
        staged.write(sections, manifest.to_json())
    if settings.verify:
        with steps.step("verify", "prove it in a process of its own"):
            proofs = [
                prove(
                    staged.readable_path,
                    payload,
                    manifest.subject.trials,
                    _suspects(manifest, model, payload),
                )
                for model, payload in zip(models, payloads, strict=True)
            ]
        manifest = replace(manifest, proofs=proofs)
        staged.replace_manifest(manifest.to_json())
    if settings.gate:
        with steps.step("gates", "check the gates"):
            check_gates(
                settings.gate,
                staged.readable_path,
                manifest.subject.source.inputs,
                _results(manifest.proofs),
                name=str(settings.output),
                not_run=_not_run(payloads),
            )
    with steps.step("commit", "sync and rename"):
        staged.commit()
    return manifest


def _results(proofs: Sequence[Proof] | None) -> tuple[TrialResult, ...]:
    return tuple(result for proof in proofs or () for result in proof.results)


def _not_run(payloads: Sequence[Payload]) -> str | None:
    """Return why no variant can be timed on this machine, or None when one can."""
    reasons = [payload.not_run for payload in payloads]
    return None if None in reasons else reasons[0]


def _suspects(manifest: Manifest, model: ir.Model, payload: Payload) -> Suspects:
    return Suspects(
        manifest.subject.source,
        manifest.subject.exported,
        model,
        ((payload.variant["backend"], payload.model),),
        manifest.tolerance,
        tuple(manifest.plugins),
    )
