"""What this machine offers, for artifacts that demand more than any machine has."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

from leptonc.runtime.errors import MachineError

_CPUINFO = Path("/proc/cpuinfo")


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
