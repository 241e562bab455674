"""The machine that an artifact is to be loaded on: this one, or one that is described."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from leptonc.compiler.errors import UsageError
from leptonc.runtime.cuda.driver import Cuda, import_cuda
from leptonc.runtime.engines.loaders import ROWS
from leptonc.runtime.errors import EngineMissingError, EnvironmentProblem
from leptonc.runtime.machine import Host, instruction_sets, this_system


@dataclass(frozen=True)
class TargetMachine:
    """A machine, as far as it is known.

    Attributes:
        host: Its system, engines, GPU and CPU.
        described: It was described; else it is this machine.
    """

    host: Host
    described: bool

    def to_json(self) -> dict[str, object]:
        """Return what is known, for `--json`."""
        versions = {
            name: None if version is None else ".".join(map(str, version))
            for name, version in self.host.engines.items()
        }
        return {
            "described": self.described,
            "os": self.host.system,
            "compute_capability": self.host.capability,
            "engines": versions,
        }


def describe_machine(
    *, sm: str | None, system: str | None, versions: Mapping[str, str]
) -> TargetMachine:
    """Return the machine that options describe; what they leave out is not known.

    Args:
        sm: Compute capability, "89" or "8.9", or "none" for a machine without a GPU.
        system: "linux-x86_64".
        versions: By engine; "none" for one that is not installed.

    Raises:
        UsageError: A value that is not of this form.
    """
    if system is not None and not re.fullmatch(r"[a-z]+-[a-z0-9_]+", system):
        raise UsageError(f"--os {system!r} is not a system", fix="e.g. --os linux-x86_64")
    engines = {name: _version(name, text) for name, text in versions.items()}
    capability = None if sm is None else _capability(sm)
    return TargetMachine(Host(system, engines, capability), described=True)


def this_machine() -> TargetMachine:
    """Return this machine, asking its libraries; nothing is loaded that could run a plan."""
    capability: str | None = None
    problem: str | None = None
    try:
        capability = Cuda(import_cuda()).capability()
    except EngineMissingError as error:
        problem = error.what
    except EnvironmentProblem as error:
        capability, problem = "", error.what
    host = Host(this_system(), {}, capability, instruction_sets(), {}, problem)
    for row in {row.backend: row for row in ROWS}.values():
        host = row.load().look(host)
    return TargetMachine(host, described=False)


def _capability(text: str) -> str:
    if text == "none":
        return ""
    if re.fullmatch(r"[0-9]{1,2}\.[0-9]", text):
        return text
    if re.fullmatch(r"[0-9]{2,3}", text):
        return f"{text[:-1]}.{text[-1]}"
    raise UsageError(
        f"--sm {text!r} is not a compute capability", fix="e.g. --sm 89, or --sm none for no GPU"
    )


def _version(name: str, text: str) -> tuple[int, ...] | None:
    if text == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}", text):
        raise UsageError(
            f"--{name} {text!r} is not a version",
            fix=f"e.g. --{name} 1.7, or --{name} none if it is not installed",
        )
    return tuple(map(int, text.split(".")))
