"""What a machine offers, for artifacts that demand more than any machine has."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from leptonc.runtime.errors import MachineError

_CPUINFO = Path("/proc/cpuinfo")
_SYSTEMS = {"win32": "windows"}
_PROCESSORS = {"AMD64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Host:
    """A machine, as far as it is known.

    Attributes:
        system: Operating system and processor ("linux-x86_64"), None when not known.
        engines: Version of each engine; None says that the engine is absent, one that is not
            listed is not known. A version may be the first numbers of one: (1, 7).
        capability: The compute capability of the GPU ("8.9"), "" for a machine without one, None
            when not known.
        instructions: Instruction sets of its CPU, None when not known.
        parts: The optional parts that an engine has there; of one that is not listed, they are
            not known.
        problem: What is in the way of a GPU, as this machine's libraries say it.
    """

    system: str | None
    engines: Mapping[str, tuple[int, ...] | None]
    capability: str | None
    instructions: frozenset[str] | None = None
    parts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    problem: str | None = None


def this_system() -> str:
    """Return this machine's operating system and processor: "linux-x86_64"."""
    machine = platform.machine()
    return f"{_SYSTEMS.get(sys.platform, sys.platform)}-{_PROCESSORS.get(machine, machine)}"


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: "10.9.0.34" is (10, 9, 0, 34)."""
    numbers = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def instruction_sets(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Return the instruction sets of the CPU in the kernel's spelling, e.g. "avx512f".

    Without the kernel's list (Linux alone has it) the answer is empty.
    """
    try:
        text = cpuinfo.read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def check_instructions(demanded: Iterable[str], where: str) -> None:
    """Refuse an artifact that was built for another kind of CPU.

    Raises:
        MachineError: Instruction sets are missing; the message names them.
    """
    present = instruction_sets()
    missing = [name for name in demanded if name not in present]
    if missing:
        raise MachineError(
            f"the artifact was built for CPUs with {', '.join(missing)}; "
            f"this one ({platform.machine()}) does not have it",
            where=where,
            fix="compile it again without `--require native`, or run it on the other machine",
        )
