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

from leptonc.compiler.machines.target_machine import TargetMachine
from leptonc.compiler.verification.record import read_record
from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import Artifact, open_artifact
from leptonc.runtime.engines.base import Reason, Verdict
from leptonc.runtime.engines.loaders import DEMANDS, find_loader, is_ours, rank
from leptonc.runtime.errors import EnvironmentProblem
from leptonc.runtime.variant_choice import candidates


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
    with open_artifact(path, DEMANDS) as artifact:
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
    verdict = _judge(artifact, variant, machine)
    return VariantAnswer(variant.name, asked, verdict.reasons, verdict.not_known)


def _judge(artifact: Artifact, variant: Variant, machine: TargetMachine) -> Verdict:
    if rank(variant) is None:
        what = f"this version has no loader for {variant.backend!r}"
        return Verdict((Reason(what, "update leptonc"),))
    try:
        loader = find_loader(variant)
    except EnvironmentProblem as error:
        return Verdict((Reason(error.what, error.fix or "uninstall it"),))
    # An engine of another distribution is asked about this machine only where it is needed.
    host = machine.host if machine.described or is_ours(variant) else loader.look(machine.host)
    return loader.judge(artifact, variant, host)
