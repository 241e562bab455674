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
from leptonc.compiler.accuracy.stage import best_effort_path, goals_missed
from leptonc.compiler.console.progress import Stage, Stages, peak_bytes
from leptonc.compiler.export.interface import settle_outputs, signature_of
from leptonc.compiler.export.onnx_export import ExportedGraph, export
from leptonc.compiler.lowering import Lowered, recorded
from leptonc.compiler.release.gates import check_gates
from leptonc.compiler.rewriting import Rewritten, rewrite
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.sources.source import Source, open_source
from leptonc.compiler.targets import targets_of, with_profiles
from leptonc.compiler.verification.blame import Suspects
from leptonc.compiler.verification.comparison import Tolerance
from leptonc.compiler.verification.finite_answers import require_finite
from leptonc.compiler.verification.proof import prove, verification
from leptonc.compiler.verification.shape_probe import probe_dimensions
from leptonc.compiler.verification.trials import Trial, TrialResult, reference_trials
from leptonc.compiler.workspace import scratch_folder
from leptonc.passes import PASSES
from leptonc.passes.base import PassStats
from leptonc.passes.pipeline import run_passes
from leptonc.passes.plugins import Plugin, load_plugins
from leptonc.passes.precision.emulation import emulate_half
from leptonc.passes.simplify import Simplify
from leptonc.runtime.artifact.reader import StagedArtifact, stage_artifact

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
        builds: What the build of each variant took, where its engine says so.
    """

    artifact: Path
    bytes: int
    manifest: dict[str, Any]
    results: tuple[TrialResult, ...]
    stages: tuple[Stage, ...]
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
                {"name": stage.name, "seconds": round(stage.seconds, 4)} for stage in self.stages
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
    targets = targets_of(settings)
    backends = [find_backend(target) for target in targets]
    plugins = load_plugins([one.name for one in PASSES]) if settings.plugins else ()
    with scratch_folder() as folder, stage_artifact(settings.output) as staged:
        subject = replace(open_and_export(settings, stages), plugins=plugins)
        targets = with_profiles(targets, subject.source)
        rewritten = _rewrite(subject, settings, targets, folder, stages, measure=measure)
        lowered = [each.lowered for each in rewritten]
        with stages.stage("build", f"build for {', '.join(settings.target)}"):
            payloads = [
                backend.build(each.model, each.target, folder, stages.progress)
                for backend, each in zip(backends, lowered, strict=True)
            ]
        manifest = _manifest(subject, payloads, lowered) | _quantization(payloads, rewritten)
        if on_rewritten is not None:
            on_rewritten(manifest)
        built = tuple(zip(lowered, payloads, strict=True))
        missed = [each.settled for each in rewritten if each.settled and each.settled.missed]
        if missed:
            best = replace(settings, output=best_effort_path(settings.output), gate=())
            with stage_artifact(best.output) as other:
                _finish(best, stages, subject, built, staged=other, manifest=manifest)
            raise goals_missed(missed[0], settings.output)
        results = _finish(settings, stages, subject, built, staged=staged, manifest=manifest)
    return CompileResult(
        artifact=settings.output,
        bytes=settings.output.stat().st_size,
        manifest=manifest,
        results=results,
        stages=tuple(stages.finished),
        passes=tuple(stats for each in lowered for stats in each.passes),
        peak_bytes=peak_bytes(),
        builds={
            payload.variant["name"]: payload.figures for payload in payloads if payload.figures
        },
    )


def lowered_graphs(settings: CompileSettings, stages: Stages) -> tuple[Lowered, ...]:
    """Return the graph of each target as its backend would get it; nothing is built.

    Raises:
        LeptonError: As for `compile_model`.
    """
    targets = targets_of(settings)
    for target in targets:
        find_backend(target)
    plugins = load_plugins([one.name for one in PASSES]) if settings.plugins else ()
    with scratch_folder() as folder:
        subject = replace(open_and_export(settings, stages), plugins=plugins)
        rewritten = _rewrite(subject, settings, targets, folder, stages)
        return tuple(each.lowered for each in rewritten)


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
    if stages.console is not None:
        for note in source.notes:
            stages.console.print(f"  note: {note}", highlight=False, markup=False)
    with stages.stage("reference", "run the source at each shape"):
        trials = reference_trials(source)
    with stages.stage("export", "export to ONNX"):
        exported = export(source, list(trials[0].expected), opset=settings.opset)
    if source.graph is not None:
        # The file's own graph stays as it is: it is the reference.
        require_finite(exported.model, trials)
        model = exported.model.clone()
        settle_outputs(model, trials)
        return Subject(source, trials, exported, model)
    require_finite(exported.model, trials)
    with stages.stage("probe", "try other shapes on the export"):
        probe_dimensions(exported.model, source, trials, settings.exact)
    return Subject(source, trials, exported, exported.model)


def _finish(
    settings: CompileSettings,
    stages: Stages,
    subject: Subject,
    built: Sequence[tuple[Lowered, Payload]],
    *,
    staged: StagedArtifact,
    manifest: dict[str, Any],
) -> tuple[TrialResult, ...]:
    """Write the staged artifact, prove it, check the gates, and give it its name."""
    with stages.stage("write", "write the artifact"):
        sections, manifest["variants"] = pack([payload for _, payload in built])
        staged.write(sections, manifest)
    results: tuple[TrialResult, ...] = ()
    if settings.verify:
        with stages.stage("verify", "prove it in a process of its own"):
            proofs = [
                prove(
                    staged.readable_path,
                    payload,
                    subject.trials,
                    _suspects(subject, each, payload, settings.accepted),
                )
                for each, payload in built
            ]
            results = tuple(result for proof in proofs for result in proof.results)
        manifest["evidence"]["verification"] = verification(
            subject.source, settings.accepted, proofs
        )
        staged.replace_manifest(manifest)
    if settings.gate:
        with stages.stage("gates", "check the gates"):
            check_gates(
                settings.gate,
                staged.readable_path,
                subject.source.inputs,
                results,
                name=str(settings.output),
                not_run=_not_run(built),
            )
    with stages.stage("commit", "sync and rename"):
        staged.commit()
    return results


def _not_run(built: Sequence[tuple[Lowered, Payload]]) -> str | None:
    """Return why no variant can be timed on this machine, or None when one can."""
    reasons = [payload.not_run for _, payload in built]
    return None if None in reasons else reasons[0]


def _suspects(
    subject: Subject, lowered: Lowered, payload: Payload, tolerance: Tolerance
) -> Suspects:
    return Suspects(
        subject.source,
        subject.exported,
        lowered.model,
        ((payload.variant["backend"], payload.model),),
        tolerance,
        subject.plugins,
        emulate_half,
    )


def _rewrite(
    subject: Subject,
    settings: CompileSettings,
    targets: Sequence[Target],
    folder: Path,
    stages: Stages,
    *,
    measure: bool = False,
) -> list[Rewritten]:
    """Rewrite the exported graph for each target; for the last one without a copy."""
    model = subject.model
    simplified: tuple[PassStats, ...] = ()
    if settings.simplify:
        with stages.stage("simplify", "run onnxsim"):
            simplified = run_passes(model, (Simplify(),))
    return [
        rewrite(
            model if target is targets[-1] else model.clone(),
            subject.source,
            subject.trials,
            settings,
            target,
            backend=find_backend(target),
            folder=folder,
            stages=stages,
            plugins=subject.plugins,
            before=simplified,
            measure=measure,
        )
        for target in targets
    ]


def _manifest(
    subject: Subject, payloads: Sequence[Payload], lowered: Sequence[Lowered]
) -> dict[str, Any]:
    source = subject.source
    return {
        "leptonc": metadata.version("leptonc"),
        "name": source.name,
        "signature": signature_of(subject.model, source.axes),
        "variants": [],
        "source": {"kind": source.kind, "fingerprint": source.fingerprint},
        "passes": recorded(lowered),
        "plugins": [plugin.to_json() for plugin in subject.plugins],
        "evidence": {
            "verification": {"verified": False, "reason": "switched off with --no-verify"},
            "placement": {payload.variant["name"]: payload.placement for payload in payloads},
            **_integers(payloads),
            "tools": _tool_versions(),
        },
    }


def _quantization(payloads: Sequence[Payload], rewritten: Sequence[Rewritten]) -> dict[str, Any]:
    """Return how the layers of each quantised variant are computed, by its name."""
    found = {
        payload.variant["name"]: each.about
        for payload, each in zip(payloads, rewritten, strict=True)
        if each.about
    }
    return {"quantization": found} if found else {}


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
