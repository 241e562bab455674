"""The machine that an artifact is to be loaded on: this one, or one that is described."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from leptonc.compiler.errors import UsageError
from leptonc.runtime.artifact.plan_demands import TENSORRT, TENSORRT_RTX
from leptonc.runtime.cuda.driver import Cuda, import_cuda
from leptonc.runtime.engines.ort import library as ort
from leptonc.runtime.engines.ort.cuda_provider import CUDA
from leptonc.runtime.engines.tensorrt.library import version_numbers
from leptonc.runtime.engines.tensorrt.plan_check import Host, this_system
from leptonc.runtime.errors import EngineMissingError, EnvironmentProblem
from leptonc.runtime.machine import instruction_sets

ONNXRUNTIME = "onnxruntime"
_MODULES = {TENSORRT_RTX: "tensorrt_rtx_bindings", TENSORRT: "tensorrt"}


@dataclass(frozen=True)
class TargetMachine:
    """A machine, as far as it is known.

    Attributes:
        host: System, engines (also "onnxruntime") and GPU.
        instructions: Instruction sets of its CPU, None when not known.
        cuda_provider: Whether its ONNX Runtime has the CUDA provider, None when not known.
        problem: What else is in the way of a GPU, as this machine's libraries say it.
        described: It was described; else it is this machine.
    """

    host: Host
    instructions: frozenset[str] | None
    cuda_provider: bool | None
    problem: str | None
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
    return TargetMachine(Host(system, engines, capability), None, None, None, described=True)


def this_machine() -> TargetMachine:
    """Return this machine, asking its libraries; nothing is loaded that could run a plan."""
    engines = {flavour: _installed(module) for flavour, module in _MODULES.items()}
    cuda_provider = False
    try:
        engine = ort.import_engine()
    except EngineMissingError:
        engines[ONNXRUNTIME] = None
    else:
        engines[ONNXRUNTIME] = version_numbers(engine.__version__)
        cuda_provider = CUDA in engine.get_available_providers()
    capability: str | None = None
    problem: str | None = None
    try:
        capability = Cuda(import_cuda()).capability()
    except EngineMissingError as error:
        problem = error.what
    except EnvironmentProblem as error:
        capability, problem = "", error.what
    host = Host(this_system(), engines, capability)
    return TargetMachine(host, instruction_sets(), cuda_provider, problem, described=False)


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


def _installed(module: str) -> tuple[int, ...] | None:
    """Return the version of the distribution that brings a module, without importing it."""
    if find_spec(module) is None:
        return None
    for name in metadata.packages_distributions().get(module, ()):
        return version_numbers(metadata.version(name))
    return None
