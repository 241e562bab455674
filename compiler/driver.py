"""The whole way from a source to a finished artifact, stage by stage."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx_ir as ir

from leptonc.backends import find_backend
from leptonc.backends.base import Payload, Target
from leptonc.backends.pack import pack
from leptonc.compiler.accuracy_stage import best_effort_path, goals_missed
from leptonc.compiler.diagnose import Suspects, verification_failed
from leptonc.compiler.explain import record
from leptonc.compiler.export import ExportedGraph, export
from leptonc.compiler.gates import check_gates
from leptonc.compiler.interface import settle_outputs, signature_of
from leptonc.compiler.probe import probe_dimensions, require_repeatable
from leptonc.compiler.rewriting import rewrite
from leptonc.compiler.settings import CompileSettings
from leptonc.compiler.source import Source, open_source
from leptonc.compiler.stages import Stage, Stages, peak_bytes
from leptonc.compiler.verify import Trial, TrialResult, reference_trials, run_trials
from leptonc.compiler.workspace import scratch_folder
from leptonc.passes import PASSES
from leptonc.passes.base import PassStats
from leptonc.passes.plugins import Plugin, load_plugins
from leptonc.runtime.artifact import StagedArtifact, stage_artifact
from leptonc.runtime.errors import UnsupportedError

TOOLS = ("leptonc", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class CompileResult:
    """What a compile produced.

    Attributes:
        artifact: The finished file.
        bytes: Its size.
        manifest: What it says about itself.
        results: How each trial compared; empty when verification was switched off.
        stages: What was done and how long it took.
        passes: What each pass did.
        peak_bytes: The largest resident size of the compiling process.
    """

    artifact: Path
    bytes: int
    manifest: dict[str, Any]
    results: tuple[TrialResult, ...]
    stages: tuple[Stage, ...]
    passes: tuple[PassStats, ...]
    peak_bytes: int

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
                {"name": stage.name, "seconds": round(stage.seconds, 4)} for stage in self.stages
            ],
            "passes": self.manifest["passes"],
            "plugins": self.manifest["plugins"],
            "fingerprint": self.manifest["source"]["fingerprint"],
            "peak_bytes": self.peak_bytes,
        }


def compile_model(
    settings: CompileSettings,
    stages: Stages | None = None,
    on_rewritten: Callable[[Mapping[str, Any]], None] | None = None,
    *,
    measure: bool = False,
) -> CompileResult:
    """Compile `settings.source` into `settings.output`.

    Nothing appears under the final name before the artifact is complete, within its gates
    and, unless verification is off, proven.

    Args:
        settings: What to compile and how.
        stages: Shows and times what is done.
        on_rewritten: Gets the manifest before the artifact is written and proven, so that what
            the passes did can be shown when the proof fails.
        measure: Measure what each quantised layer costs and takes, for the manifest.

    Raises:
        LeptonError: Of the kind that says what is wrong; see the `errors` module of each
            package for the trees.
    """
    stages = stages or Stages()
    targets = _targets(settings)
    backends = [find_backend(target) for target in targets]
    plugins = load_plugins([one.name for one in PASSES]) if settings.plugins else ()
    with scratch_folder() as folder, stage_artifact(settings.output) as staged:
        subject = replace(open_and_export(settings, stages), plugins=plugins)
        rewritten = rewrite(
            subject.model,
            subject.source,
            subject.trials,
            settings,
            targets[0],
            backend=backends[0],
            folder=folder,
            stages=stages,
            plugins=plugins,
            measure=measure,
        )
        subject = replace(subject, model=rewritten.model)
        with stages.stage("build", f"build for {', '.join(settings.target)}"):
            payloads = [
                backend.build(subject.model, target, folder)
                for backend, target in zip(backends, targets, strict=True)
            ]
        manifest = _manifest(subject, payloads, rewritten.passes) | rewritten.about
        if on_rewritten is not None:
            on_rewritten(manifest)
        if rewritten.settled is not None and rewritten.settled.missed:
            best = replace(settings, output=best_effort_path(settings.output), gate=())
            with stage_artifact(best.output) as other:
                _finish(best, stages, subject, payloads, staged=other, manifest=manifest)
            raise goals_missed(rewritten.settled, settings.output)
        results = _finish(settings, stages, subject, payloads, staged=staged, manifest=manifest)
    return CompileResult(
        artifact=settings.output,
        bytes=settings.output.stat().st_size,
        manifest=manifest,
        results=results,
        stages=tuple(stages.finished),
        passes=rewritten.passes,
        peak_bytes=peak_bytes(),
    )


@dataclass(frozen=True)
class Subject:
    """A source, the right answers, its graph before and during the rewriting, and who helps."""

    source: Source
    trials: tuple[Trial, ...]
    exported: ExportedGraph
    model: ir.Model
    plugins: tuple[Plugin, ...] = ()


def open_and_export(settings: CompileSettings, stages: Stages) -> Subject:
    """Open the source, compute the right answers, and export it; nothing is rewritten yet."""
    with stages.stage("load", "load the source"):
        source = open_source(settings.source, inputs=settings.inputs)
    with stages.stage("reference", "run the source at each shape"):
        trials = reference_trials(source)
    with stages.stage("export", "export to ONNX"):
        exported = export(source, list(trials[0].expected), opset=settings.opset)
    if source.graph is not None:
        # The file's own graph stays as it is: it is the reference.
        model = exported.model.clone()
        settle_outputs(model, trials)
        return Subject(source, trials, exported, model)
    with stages.stage("probe", "try other shapes on the export"):
        probe_dimensions(exported.model, source, trials, settings.exact)
    return Subject(source, trials, exported, exported.model)


def _finish(
    settings: CompileSettings,
    stages: Stages,
    subject: Subject,
    payloads: Sequence[Payload],
    *,
    staged: StagedArtifact,
    manifest: dict[str, Any],
) -> tuple[TrialResult, ...]:
    """Write the staged artifact, prove it, check the gates, and give it its name."""
    with stages.stage("write", "write the artifact"):
        sections, manifest["variants"] = pack(payloads)
        staged.write(sections, manifest)
    results: tuple[TrialResult, ...] = ()
    if settings.verify:
        with stages.stage("verify", "prove it in a process of its own"):
            suspects = Suspects(
                subject.source,
                subject.exported,
                subject.model,
                _lowered(payloads),
                settings.accepted,
                subject.plugins,
            )
            results = _prove(staged.readable_path, subject.trials, suspects)
        manifest["evidence"]["verification"] = _verification(settings, subject.source, results)
        staged.replace_manifest(manifest)
    if settings.gate:
        with stages.stage("gates", "check the gates"):
            check_gates(
                settings.gate,
                staged.readable_path,
                subject.source.inputs,
                results,
                name=str(settings.output),
            )
    with stages.stage("commit", "sync and rename"):
        staged.commit()
    return results


def _targets(settings: CompileSettings) -> tuple[Target, ...]:
    if len(set(settings.target)) != len(settings.target):
        raise UnsupportedError(
            f"a target is given twice: {', '.join(settings.target)}", fix="give each target once"
        )
    return tuple(
        Target.parse(name, precision=settings.precision, require=settings.require)
        for name in settings.target
    )


def _lowered(payloads: Sequence[Payload]) -> tuple[tuple[str, Callable[[], ir.Model]], ...]:
    return tuple((payload.variant["backend"], payload.model) for payload in payloads)


def _manifest(
    subject: Subject, payloads: Sequence[Payload], passes: Sequence[PassStats]
) -> dict[str, Any]:
    source = subject.source
    return {
        "leptonc": metadata.version("leptonc"),
        "name": source.name,
        "signature": signature_of(subject.model, source.axes),
        "variants": [],
        "source": {"kind": source.kind, "fingerprint": source.fingerprint},
        "passes": [record(stats) for stats in passes],
        "plugins": [plugin.to_json() for plugin in subject.plugins],
        "evidence": {
            "verification": {"verified": False, "reason": "switched off with --no-verify"},
            "placement": {payload.variant["name"]: payload.placement for payload in payloads},
            **_integers(payloads),
            "tools": _tool_versions(),
        },
    }


def _integers(payloads: Sequence[Payload]) -> dict[str, Any]:
    """Return the engine's operator for each quantised layer, where there are any."""
    found = {
        payload.variant["name"]: dict(payload.integers) for payload in payloads if payload.integers
    }
    return {"integers": found} if found else {}


def _tool_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for tool in TOOLS:
        try:
            versions[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _prove(artifact: str, trials: Sequence[Trial], suspects: Suspects) -> tuple[TrialResult, ...]:
    results = run_trials(artifact, trials, suspects.tolerance)
    for trial, result in zip(trials, results, strict=True):
        if not result.passed:
            require_repeatable(suspects.source, trials[0], suspects.tolerance)
            raise verification_failed(trial, result, suspects)
    return results


def _verification(
    settings: CompileSettings, source: Source, results: Sequence[TrialResult]
) -> dict[str, Any]:
    reference = (
        "the source graph on ONNX Runtime, unoptimised"
        if source.kind == "onnx"
        else "the source module on PyTorch"
    )
    return {
        "verified": True,
        "reference": reference,
        "tolerance": {
            "sqnr_db": settings.accepted.sqnr_db,
            "relative": settings.accepted.relative,
        },
        "trials": [result.to_json() for result in results],
    }
