"""What is installed, what each target needs, and the pip command for what is missing.

Everything is read from the rows of the backends, from package metadata and from the operating
system. No engine and no compiler package is imported, so the doctor also works where one of them
is absent or broken.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from leptonc.backends.base import TargetRow
from leptonc.backends.errors import PluginError
from leptonc.backends.plugins import installed_rows
from leptonc.backends.rows import BACKENDS, PLANNED_TARGETS
from leptonc.compiler.machines.installed_plugins import (
    InstalledPlugin,
    installed_plugins,
    plugin_table,
)
from leptonc.runtime.artifact.reader import available_threads
from leptonc.runtime.errors import EnvironmentProblem
from leptonc.runtime.machine import instruction_sets

State = Literal["ready", "missing", "unsupported", "broken"]

# Instruction sets that decide which kernels an engine picks, as /proc/cpuinfo spells them.
INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)

# Packages that ship the modules of others and run their targets too.
_SUBSTITUTES = {name: other for row in BACKENDS for name, other in row.substitutes.items()}


@dataclass(frozen=True)
class Machine:
    """The computer, as far as it decides what runs and how fast.

    Attributes:
        python: Version of the interpreter.
        system: Operating system, release and architecture.
        instructions: Those of `INSTRUCTIONS` that the CPU has, as far as can be seen.
        cores: Cores that this process may use.
        memory_bytes: Physical memory, or None where it cannot be asked for.
    """

    python: str
    system: str
    instructions: tuple[str, ...]
    cores: int
    memory_bytes: int | None


@dataclass(frozen=True)
class Package:
    """One requirement of leptonc.

    Attributes:
        name: Distribution name.
        extra: The extra that asks for it; empty for the runtime's own requirement.
        needed: Version specifier, such as `>=1.1,<1.2`; may be empty.
        found: The installed version, or None.
        ok: Whether an installed version satisfies `needed`.
    """

    name: str
    extra: str
    needed: str
    found: str | None
    ok: bool


@dataclass(frozen=True)
class Capability:
    """Something that leptonc can do: `compile`, or run a target.

    Attributes:
        name: `compile`, or the name of a target.
        state: Whether it works here.
        detail: Why it is in this state, in a few words.
        command: What installs what is missing, or None.
    """

    name: str
    state: State
    detail: str
    command: str | None


@dataclass(frozen=True)
class Diagnosis:
    """What `leptonc doctor` found."""

    leptonc: str
    machine: Machine
    packages: tuple[Package, ...]
    capabilities: tuple[Capability, ...]
    plugins: tuple[InstalledPlugin, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return plain dicts, lists, strings and numbers."""
        return {
            "leptonc": self.leptonc,
            "machine": dataclasses.asdict(self.machine),
            "packages": [dataclasses.asdict(package) for package in self.packages],
            "capabilities": [dataclasses.asdict(item) for item in self.capabilities],
            "plugins": [dataclasses.asdict(plugin) for plugin in self.plugins],
        }

    def render(self, console: Console) -> None:
        """Print tables: the machine, the packages, what works, and plugins if there are any."""
        console.print(_machine_table(self.leptonc, self.machine))
        console.print()
        console.print(_package_table(self.packages))
        console.print()
        console.print(_capability_table(self.capabilities))
        if self.plugins:
            console.print()
            console.print(plugin_table(self.plugins))


def diagnose() -> Diagnosis:
    """Look at this machine and at the installed packages.

    Raises:
        EnvironmentProblem: leptonc runs from a folder without having been installed, so that
            nothing says what it needs.
    """
    try:
        distribution = metadata.distribution("leptonc")
    except metadata.PackageNotFoundError as error:
        raise EnvironmentProblem(
            "leptonc is not installed as a package, so its requirements are unknown",
            fix="install it: make setup, or pip install leptonc",
        ) from error
    packages = tuple(_check(requirement) for requirement in distribution.requires or ())
    return Diagnosis(
        leptonc=distribution.version,
        machine=inspect_machine(),
        packages=packages,
        capabilities=(
            _capability("compile", "compile", packages, "leptonc[compile]"),
            *_targets(packages),
        ),
        plugins=installed_plugins(),
    )


def inspect_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """Return what this computer offers."""
    present = instruction_sets(cpuinfo)
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        instructions=tuple(name for name in INSTRUCTIONS if name in present),
        cores=available_threads(),
        memory_bytes=_memory(),
    )


def has_driver() -> bool:
    """Whether an NVIDIA driver is installed; whether it finds a GPU is not asked."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _memory() -> int | None:
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(os.sysconf_names):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _check(requirement: str) -> Package:
    """Compare one line of metadata, such as `torch>=2.9; extra == "compile"`, with reality."""
    spec, _, marker = requirement.partition(";")
    name = re.split(r"[^\w.-]", spec.strip(), maxsplit=1)[0]
    # What stands in brackets behind the name is extras of it.
    needed = re.sub(r"^\s*\[[^\]]*\]", "", spec.strip().removeprefix(name)).strip()
    extra = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", marker)
    found = _installed(name) or _installed(_SUBSTITUTES.get(name, name))
    return Package(
        name=name,
        extra=extra.group(1) if extra else "",
        needed=needed,
        found=found,
        ok=found is not None and satisfies(found, needed),
    )


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def satisfies(version: str, specifier: str) -> bool:
    """Say whether `version` is inside `specifier`, by its release numbers.

    Only the comparisons that setup.cfg uses are known: `==`, `>=`, `<`, joined by commas.
    Local versions (`2.13.0+cpu`) compare equal to their release.
    """
    release = _release(version)
    checks = {
        "==": lambda bound: release == bound,
        ">=": lambda bound: release >= bound,
        "<": lambda bound: release < bound,
    }
    return all(
        checks[operator](_release(bound))
        for operator, bound in re.findall(r"(==|>=|<)\s*([\w.+!-]+)", specifier)
    )


def _release(version: str) -> tuple[int, ...]:
    digits = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in digits.group().split(".")] if digits else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _targets(packages: Sequence[Package]) -> Iterator[Capability]:
    """Say of each target whether it runs here: ours first, then those of other distributions."""
    for row in BACKENDS:
        for target in row.targets:
            yield _target(target, "leptonc", packages)
    for name in PLANNED_TARGETS:
        yield Capability(name, "unsupported", "this version of leptonc has no backend for it", None)
    for entry, found in installed_rows(BACKENDS):
        if isinstance(found, PluginError):
            detail = f"{found.what} ({found.where}): {found.fix}"
            yield Capability(entry.name, "broken", detail, None)
        elif entry.dist is not None:
            brought = Package(entry.dist.name, "", "", entry.dist.version, ok=True)
            needs = [brought, *(_check(line) for line in entry.dist.requires or ())]
            for target in found.targets:
                yield _target(target, entry.dist.name, needs)


def _target(target: TargetRow, distribution: str, packages: Sequence[Package]) -> Capability:
    install = f"{distribution}[{target.extra}]" if target.extra else distribution
    found = _capability(target.name, target.extra, packages, install)
    if found.state == "ready" and target.device == "gpu" and not has_driver():
        detail = "no NVIDIA driver here: it compiles, and runs on a machine with a GPU"
        return Capability(target.name, "missing", detail, None)
    return found


def _capability(name: str, extra: str, packages: Sequence[Package], install: str) -> Capability:
    needs = [package for package in packages if package.extra in ("", extra)]
    wrong = [package for package in needs if not package.ok]
    if not wrong:
        return Capability(name, "ready", ", ".join(f"{p.name} {p.found}" for p in needs), None)
    missing = ", ".join(
        f"{p.name} is missing" if p.found is None else f"{p.name} {p.found} is not {p.needed}"
        for p in wrong
    )
    return Capability(name, "missing", missing, f"pip install '{install}'")


def _machine_table(version: str, machine: Machine) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    memory = machine.memory_bytes
    table.add_row("leptonc", version)
    table.add_row("Python", machine.python)
    table.add_row("system", machine.system)
    table.add_row("CPU", " ".join(machine.instructions) or "unknown instruction sets")
    table.add_row("cores", str(machine.cores))
    table.add_row("memory", "unknown" if memory is None else f"{memory / 2**30:.1f} GiB")
    return table


def _package_table(packages: tuple[Package, ...]) -> Table:
    table = Table("package", "extra", "needed", "found", "", box=None, pad_edge=False)
    for package in packages:
        verdict = "[green]ok[/]" if package.ok else "[yellow]missing[/]"
        if package.found is not None and not package.ok:
            verdict = "[red]wrong version[/]"
        table.add_row(
            package.name, package.extra, package.needed or "any", package.found or "-", verdict
        )
    return table


def _capability_table(capabilities: tuple[Capability, ...]) -> Table:
    style = {"ready": "green", "missing": "yellow", "unsupported": "dim", "broken": "red"}
    table = Table("target", "state", "", box=None, pad_edge=False)
    for item in capabilities:
        detail = item.detail if item.command is None else f"{item.detail}: {item.command}"
        # A requirement or a command such as leptonc[ort] would read as markup.
        table.add_row(
            item.name, f"[{style[item.state]}]{item.state}[/]", detail.replace("[", r"\[")
        )
    return table
