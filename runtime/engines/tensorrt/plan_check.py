"""Says whether a plan will load on a machine, from what both are called and nothing else.

The rules are the engines' own: a plan is read by the version that built it (a later one of the
same major number, if it was built to be version compatible), on the operating system it was built
for, by a GPU of a compute capability that it has code for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from leptonc.runtime.engines.base import Reason, Verdict
from leptonc.runtime.engines.tensorrt.plan_demands import (
    AMPERE_PLUS,
    NO_COMPATIBILITY,
    RTX_CAPABILITIES,
    TENSORRT,
    PlanDemands,
)
from leptonc.runtime.errors import EngineMissingError, LeptonError, MachineError
from leptonc.runtime.machine import Host

_FIRST_AMPERE = 8


@dataclass(frozen=True)
class Objection:
    """One reason why a plan will not load.

    Attributes:
        about: What it is that does not fit.
        what: The reason, with what is there and what is needed.
        fix: What to do.
    """

    about: Literal["engine", "system", "capability"]
    what: str
    fix: str

    def error(self, where: str) -> LeptonError:
        """The error that a load raises for it."""
        kind = EngineMissingError if self.about == "engine" else MachineError
        return kind(self.what, where=where, fix=self.fix)


def judge(demands: PlanDemands, host: Host) -> Verdict:
    """Say whether the plan will load there; what is not known is said when nothing objects."""
    found = [
        Reason(
            f"{entry.what} ({host.problem})"
            if entry.about == "capability" and host.problem
            else entry.what,
            entry.fix,
        )
        for entry in objections(demands, host)
    ]
    if host.problem is not None and host.capability is None:
        found.append(Reason(host.problem, "pip install 'leptonc[tensorrt]'"))
    return Verdict(tuple(found), () if found else unknowns(demands, host))


def objections(demands: PlanDemands, host: Host) -> tuple[Objection, ...]:
    """Return every reason why the plan will not load there; what is not known raises none."""
    found: list[Objection] = []
    if host.system is not None and host.system != demands.system:
        found.append(
            Objection(
                "system",
                f"the plan was built for {demands.system}; the machine is {host.system}",
                f"compile the model on {host.system}",
            )
        )
    if demands.flavour in host.engines:
        version = host.engines[demands.flavour]
        if version is None or not _reads(demands, version):
            found.append(_engine_objection(demands, version))
    if host.capability is not None and not _runs(demands, host.capability):
        found.append(_capability_objection(demands, host.capability))
    return tuple(found)


def unknowns(demands: PlanDemands, host: Host) -> tuple[str, ...]:
    """Return what is not known of the machine and would have to be right."""
    found = []
    if host.system is None:
        found.append(f"operating system: {demands.system} is needed")
    version = host.engines.get(demands.flavour)
    if demands.flavour not in host.engines or (
        version is not None and len(version) < len(demands.version)
    ):
        found.append(f"version of {demands.flavour}: {_needed(demands)}")
    if host.capability is None:
        found.append(f"compute capability: {_capabilities(demands)} is needed")
    return tuple(found)


def _reads(demands: PlanDemands, version: tuple[int, ...]) -> bool:
    known = min(len(version), len(demands.version))
    if version[:known] == demands.version[:known]:
        return True
    return (
        demands.version_compatible
        and version[:1] == demands.version[:1]
        and version[:known] > demands.version[:known]
    )


def _runs(demands: PlanDemands, capability: str) -> bool:
    if capability in demands.compute_capabilities:
        return True
    if demands.hardware_compatibility != AMPERE_PLUS:
        return False
    return capability != "" and int(capability.split(".", maxsplit=1)[0]) >= _FIRST_AMPERE


def _engine_objection(demands: PlanDemands, version: tuple[int, ...] | None) -> Objection:
    there = (
        f"{demands.flavour} is not installed"
        if version is None
        else f"{demands.flavour} {'.'.join(map(str, version))} is installed"
    )
    return Objection(
        "engine",
        f"{there}; {_needed(demands)}",
        f"install {demands.flavour} {demands.version_text}"
        + (" (pip install 'leptonc[tensorrt]')" if version is None else "")
        + ", or compile the model with the version that is there",
    )


def _capability_objection(demands: PlanDemands, capability: str) -> Objection:
    needed = _capabilities(demands)
    if capability == "":
        return Objection(
            "capability",
            f"there is no GPU; the plan needs one of compute capability {needed}",
            "use a machine with such a GPU, or a variant for the CPU",
        )
    return Objection(
        "capability",
        f"the GPU has compute capability {capability}; the plan was built for {needed}",
        _other_gpu(demands, capability),
    )


def _other_gpu(demands: PlanDemands, capability: str) -> str:
    if demands.flavour == TENSORRT:
        return "compile the model on a machine with this GPU"
    if capability in RTX_CAPABILITIES:
        return f"compile the model with `--sm {capability.replace('.', '')}`"
    return (
        f"TensorRT for RTX does not build for {capability}: "
        "compile the model with `--flavour classic` on such a GPU, or with `-t ort-cuda`"
    )


def _needed(demands: PlanDemands) -> str:
    if demands.version_compatible:
        major = demands.version[0]
        return f"the plan needs {demands.version_text} or a later {major}.x"
    return f"the plan needs exactly {demands.version_text}"


def _capabilities(demands: PlanDemands) -> str:
    listed = " or ".join(demands.compute_capabilities)
    if demands.hardware_compatibility == NO_COMPATIBILITY:
        return listed
    if demands.hardware_compatibility == AMPERE_PLUS:
        return f"{_FIRST_AMPERE}.0 or later"
    return listed
