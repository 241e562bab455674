"""Says for each variant of an artifact whether it will load on a machine, and why not.

Nothing is deserialised: a plan is checked by its hash, by its header and by what the manifest says
that it demands. The rules are those that the runtime applies when it loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from leptonc.compiler.machines.target_machine import ONNXRUNTIME, TargetMachine
from leptonc.compiler.verification.record import read_record
from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import Artifact, open_artifact
from leptonc.runtime.engines.tensorrt.plan_check import objections, unknowns
from leptonc.runtime.engines.tensorrt.plan_header import check_plan_header
from leptonc.runtime.variant_choice import candidates


@dataclass(frozen=True)
class Reason:
    """Why a variant will not load, and what to do."""

    what: str
    fix: str


@dataclass(frozen=True)
class VariantAnswer:
    """Whether one variant will load.

    Attributes:
        name: The variant's.
        asked: A load for the device that was asked for may use it.
        reasons: Why not; empty when it will.
        not_known: What is not known of the machine and has to be right.
    """

    name: str
    asked: bool
    reasons: tuple[Reason, ...]
    not_known: tuple[str, ...]

    @property
    def loads(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        """Return its part of the object that `--json` prints."""
        return {
            "name": self.name,
            "asked": self.asked,
            "loads": self.loads,
            "reasons": [{"what": reason.what, "fix": reason.fix} for reason in self.reasons],
            "not_known": list(self.not_known),
        }


@dataclass(frozen=True)
class LoadableReport:
    """The answers for all variants.

    Attributes:
        artifact: The file.
        device: "cpu", "gpu" or "auto", as for `load`.
        machine: What is known of it.
        answers: In the order in which a load tries the variants, the others behind.
        record: What a verification found, None without one.
    """

    artifact: Path
    device: str
    machine: TargetMachine
    answers: tuple[VariantAnswer, ...]
    record: Mapping[str, Any] | None = None

    @property
    def chosen(self) -> str | None:
        """The variant that a load would use."""
        return next((a.name for a in self.answers if a.asked and a.loads), None)

    def to_json(self) -> dict[str, Any]:
        """Return the one object that `--json` prints."""
        return {
            "artifact": str(self.artifact),
            "hashes": "ok",
            "device": self.device,
            "machine": self.machine.to_json(),
            "loads": self.chosen is not None,
            "variant": self.chosen,
            "variants": [answer.to_json() for answer in self.answers],
            "record": None if self.record is None else dict(self.record),
        }

    def render(self, console: Console) -> None:
        """Print a line for each variant, and the reasons under it."""
        where = "the machine described" if self.machine.described else "this machine"
        console.print(f"{self.artifact} on {where}, device {self.device!r}:", markup=False)
        for answer in self.answers:
            word = "loads" if answer.loads else "does not load"
            aside = "" if answer.asked else f" (not used for device {self.device!r})"
            console.print(f"  {answer.name}: {word}{aside}", markup=False)
            for reason in answer.reasons:
                console.print(f"    {reason.what}\n      fix: {reason.fix}", markup=False)
            for line in answer.not_known:
                console.print(f"    not known: {line}", markup=False)
        if self.record is not None:
            machine = self.record["machine"]
            seen = "compared with its source" if self.record["compared"] else "loaded"
            console.print(
                f"record: {self.record['variant']} was {seen} on {machine.get('os')}, "
                f"compute capability {machine.get('compute_capability') or 'none'}",
                markup=False,
            )
        used = f"a load uses {self.chosen}" if self.chosen else "a load is refused"
        console.print(used, markup=False)


def check_loadable(
    path: Path,
    machine: TargetMachine,
    *,
    device: str,
    variant: str | None = None,
    record: Path | None = None,
) -> LoadableReport:
    """Check an artifact for a machine.

    Args:
        path: The artifact.
        machine: Where it is to be loaded.
        device: As for `load`.
        variant: The variant to ask about and no other, or None.
        record: A file of `leptonc verify --record` to show with the answers.

    Raises:
        InputError: The record is none, or of another artifact.
        ArtifactError: The file is damaged, or a plan is not the one the manifest describes.
        UnsupportedError: It has no variant for the device, or none of that name.
    """
    with open_artifact(path) as artifact:
        artifact.verify()
        asked = candidates(artifact.manifest.variants, device, variant, artifact.path)
        others = [entry for entry in artifact.manifest.variants if entry not in asked]
        answers = tuple(
            _answer(artifact, entry, machine, asked=entry in asked) for entry in (*asked, *others)
        )
        found = None if record is None else read_record(record, artifact.digest)
    return LoadableReport(path, device, machine, answers, found)


def _answer(
    artifact: Artifact, variant: Variant, machine: TargetMachine, *, asked: bool
) -> VariantAnswer:
    plan = variant.demands.plan
    if plan is None:
        reasons, not_known = _onnxruntime(variant, machine)
        return VariantAnswer(variant.name, asked, tuple(reasons), tuple(not_known))
    where = f"{artifact.path}, variant {variant.name!r}"
    check_plan_header(artifact.view(variant.graph), plan, where)
    found = [
        Reason(
            f"{entry.what} ({machine.problem})"
            if entry.about == "capability" and machine.problem
            else entry.what,
            entry.fix,
        )
        for entry in objections(plan, machine.host)
    ]
    if machine.problem is not None and machine.host.capability is None:
        found.append(Reason(machine.problem, "pip install 'leptonc[tensorrt]'"))
    missing = () if found else unknowns(plan, machine.host)
    return VariantAnswer(variant.name, asked, tuple(found), missing)


def _onnxruntime(variant: Variant, machine: TargetMachine) -> tuple[list[Reason], list[str]]:
    if variant.backend != "ort":
        return [Reason(f"this version has no loader for {variant.backend!r}", "update leptonc")], []
    reasons: list[Reason] = []
    not_known: list[str] = []
    needed = ".".join(map(str, variant.demands.engine_min))
    fix = f"pip install 'onnxruntime>={needed}'"
    if ONNXRUNTIME not in machine.host.engines:
        not_known.append(f"version of onnxruntime: {needed} or later is needed")
    else:
        version = machine.host.engines[ONNXRUNTIME]
        if version is None:
            reasons.append(Reason("onnxruntime is not installed", fix))
        elif version < variant.demands.engine_min[: len(version)]:
            there = ".".join(map(str, version))
            what = f"onnxruntime {there} is installed; the artifact needs {needed} or later"
            reasons.append(Reason(what, fix))
    demanded = variant.demands.instructions
    if machine.instructions is None and demanded:
        not_known.append(f"instruction sets of the CPU: {', '.join(demanded)} are needed")
    elif machine.instructions is not None:
        lacking = [name for name in demanded if name not in machine.instructions]
        if lacking:
            what = f"the CPU has no {', '.join(lacking)}"
            reasons.append(Reason(what, "compile it again without `--require native`"))
    if variant.device == "gpu":
        _cuda_provider(machine, reasons, not_known)
    return reasons, not_known


def _cuda_provider(machine: TargetMachine, reasons: list[Reason], not_known: list[str]) -> None:
    if machine.cuda_provider is False:
        what = "onnxruntime is installed without its CUDA provider"
        reasons.append(Reason(what, "pip uninstall onnxruntime && pip install 'leptonc[gpu]'"))
    elif machine.cuda_provider is None:
        not_known.append("onnxruntime's CUDA provider: onnxruntime-gpu is needed")
    if machine.host.capability == "":
        what = machine.problem or "there is no GPU"
        reasons.append(Reason(what, "use a machine with a GPU, or a variant for the CPU"))
    elif machine.host.capability is None:
        not_known.append("GPU: one that CUDA supports is needed")
