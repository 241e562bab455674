"""What a TensorRT plan demands of the machine that loads it.

A plan is native code for named GPUs, one engine version and one operating system. The compiler
writes those into the manifest, so that whether a plan will load can be said without loading it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from leptonc.runtime.artifact.layout import is_count
from leptonc.runtime.artifact.manifest import Fail
from leptonc.runtime.artifact.signature import Signature

TENSORRT_RTX = "tensorrt-rtx"
TENSORRT = "tensorrt"
FLAVOURS = (TENSORRT_RTX, TENSORRT)
NO_COMPATIBILITY = "none"
AMPERE_PLUS = "ampere_plus"
SAME_CAPABILITY = "same_compute_capability"
HARDWARE_COMPATIBILITY = (NO_COMPATIBILITY, AMPERE_PLUS, SAME_CAPABILITY)
# The GPUs that TensorRT for RTX builds for, each with its bit in a plan's header.
RTX_CAPABILITIES = MappingProxyType(
    {"7.5": 1, "8.0": 2, "8.6": 4, "8.9": 8, "12.0": 16, "12.1": 32}
)


@dataclass(frozen=True)
class ShapeRange:
    """The sizes that one input may have in one profile, one integer for each axis."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Return whether every size is within its bounds."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )


Profile = Mapping[str, ShapeRange]


@dataclass(frozen=True)
class PlanDemands:
    """What a plan was built for.

    Attributes:
        flavour: "tensorrt-rtx" or "tensorrt": neither reads the other's plans.
        version: The full version of the engine that built it, e.g. (1, 7, 1, 116).
        compute_capabilities: The GPUs it has code for, e.g. ("8.6", "8.9").
        system: Operating system and processor, e.g. "linux-x86_64".
        profiles: For each optimisation profile the range of every input's shape.
        version_compatible: Later versions with the same major number read it too.
        hardware_compatibility: Which other GPUs run it, one of `HARDWARE_COMPATIBILITY`.
    """

    flavour: str
    version: tuple[int, ...]
    compute_capabilities: tuple[str, ...]
    system: str
    profiles: tuple[Profile, ...]
    version_compatible: bool = False
    hardware_compatibility: str = NO_COMPATIBILITY

    @property
    def version_text(self) -> str:
        """The version as people write it: "1.7.1.116"."""
        return ".".join(map(str, self.version))


def read_plan_demands(
    value: Mapping[str, Any], signature: Signature, path: str, fail: Fail
) -> PlanDemands:
    """Check the "demands" of a variant against the inputs of its model; see `ReadDemands`."""
    plan = parse_plan_demands(value, path, fail)
    ranks = {spec.name: len(spec.shape) for spec in signature.inputs}
    for index, profile in enumerate(plan.profiles):
        for name, bounds in profile.items():
            if ranks.get(name) != len(bounds.min):
                fail(
                    f"{path}.profiles[{index}]",
                    f"{name!r} of rank {len(bounds.min)} is not an input of the model",
                )
    return plan


def parse_plan_demands(value: Mapping[str, Any], path: str, fail: Fail) -> PlanDemands:
    """Check the "demands" of a TensorRT variant.

    Args:
        value: The JSON object.
        path: Where it stands in the manifest.
        fail: Raises the manifest's error for a path and a reason.
    """
    flavour = _text(value, "engine", path, fail)
    if flavour not in FLAVOURS:
        fail(f"{path}.engine", f"{flavour!r} is not one of {', '.join(FLAVOURS)}")
    version = _text(value, "version", path, fail)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}", version):
        fail(f"{path}.version", f"{version!r} is not a version")
    capabilities = value.get("compute_capabilities")
    if not isinstance(capabilities, list) or not capabilities:
        fail(f"{path}.compute_capabilities", "not a list of compute capabilities")
    for entry in capabilities:
        if not isinstance(entry, str) or not re.fullmatch(r"[0-9]{1,2}\.[0-9]", entry):
            fail(f"{path}.compute_capabilities", f"{entry!r} is not a compute capability")
    profiles = value.get("profiles")
    if not isinstance(profiles, list) or not profiles:
        fail(f"{path}.profiles", "not a list of profiles")
    compatible = value.get("version_compatible", False)
    if not isinstance(compatible, bool):
        fail(f"{path}.version_compatible", f"{compatible!r} is neither true nor false")
    hardware = value.get("hardware_compatibility", NO_COMPATIBILITY)
    if hardware not in HARDWARE_COMPATIBILITY:
        fail(
            f"{path}.hardware_compatibility",
            f"{hardware!r} is not one of {', '.join(HARDWARE_COMPATIBILITY)}",
        )
    return PlanDemands(
        flavour,
        tuple(map(int, version.split("."))),
        tuple(capabilities),
        _text(value, "os", path, fail),
        tuple(
            _profile(entry, f"{path}.profiles[{index}]", fail)
            for index, entry in enumerate(profiles)
        ),
        compatible,
        hardware,
    )


def _text(value: Mapping[str, Any], key: str, path: str, fail: Fail) -> str:
    found = value.get(key)
    if not isinstance(found, str) or not found:
        fail(f"{path}.{key}", f"{found!r} is not a name")
    return found


def _profile(value: Any, path: str, fail: Fail) -> Profile:
    if not isinstance(value, dict):
        fail(path, f"{type(value).__name__} where an object belongs")
    return MappingProxyType(
        {name: _range(entry, f"{path} ({name!r})", fail) for name, entry in value.items()}
    )


def _range(value: Any, path: str, fail: Fail) -> ShapeRange:
    if not isinstance(value, dict):
        fail(path, f"{type(value).__name__} where an object belongs")
    low, best, high = (_sizes(value.get(key), f"{path}.{key}", fail) for key in _RANGE)
    ordered = len(low) == len(best) == len(high) and all(
        a <= b <= c for a, b, c in zip(low, best, high, strict=True)
    )
    if not ordered:
        fail(path, f"{list(low)}, {list(best)}, {list(high)} do not ascend axis by axis")
    return ShapeRange(low, best, high)


_RANGE = ("min", "opt", "max")


def _sizes(value: Any, path: str, fail: Fail) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(is_count(size) for size in value):
        fail(path, f"{value!r} is not a list of sizes")
    return tuple(value)
