"""What can be asked of TensorRT, and what each of its two flavours cannot do.

TensorRT for RTX ("rtx") builds on a machine without a GPU for the compute capabilities that it is
told. TensorRT itself ("classic") builds for the GPU of the machine. An option that a flavour does
not have is refused by name: ignoring one would give another engine than the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leptonc.backends.base import DimRange, Unsupported
from leptonc.backends.errors import UnsupportedTargetError
from leptonc.backends.option import option
from leptonc.runtime.engines.tensorrt.plan_demands import TENSORRT, TENSORRT_RTX

# The ranges of some dimensions, by name.
Profile = tuple[tuple[str, DimRange], ...]

RTX, CLASSIC = "rtx", "classic"
FLAVOURS: Mapping[str, str] = {RTX: TENSORRT_RTX, CLASSIC: TENSORRT}
# The GPUs that TensorRT for RTX 1.7 builds for. Hopper (90) is not among them.
RTX_CAPABILITIES = ("75", "80", "86", "89", "120", "121")
DEFAULT_CAPABILITIES = ("86", "89", "120")
HARDWARE_LEVELS = ("none", "ampere_plus", "same_compute_capability")
HIGHEST_LEVEL = 5
_OTHER_SM = "name others, or leave it out"
_CLASSIC_HAS_IT = "leave it out, or use --flavour classic on the machine with the GPU"
_UNITS = {"KB": 10, "MB": 20, "GB": 30}
_CLASSIC_ONLY: Mapping[str, tuple[str, str]] = {
    "timing_cache": ("--timing-cache", "it cannot read one back on a machine without a GPU"),
    "version_compatible": ("--version-compatible", "its plans are read by their own version alone"),
    "hardware_compatible": (
        "--hardware-compatible",
        "its plans run on the compute capabilities that --sm names, and this level changes nothing",
    ),
    "strip_weights": ("--strip-weights", "it cannot strip or refit a plan without a GPU"),
}


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return read


def parse_capabilities(written: object) -> tuple[str, ...]:
    """Read "86,89,120", or with a point "8.6,8.9,12.0"; or a list of such.

    Raises:
        ValueError: An entry is not a compute capability.
    """
    found = []
    listed = written if isinstance(written, list | tuple) else [written]
    for entry in ",".join(map(str, listed)).split(","):
        name = entry.strip().replace(".", "")
        if not (name.isascii() and name.isdecimal() and 2 <= len(name) <= 3):
            raise ValueError(f"{entry.strip()!r} is not a compute capability such as 89")
        found.append(name)
    return tuple(dict.fromkeys(found))


def parse_profile(text: str) -> Profile:
    """Read "batch=1:8:64,sequence=16:128:512"; "batch=1" is one size.

    Raises:
        ValueError: An entry is not a dimension and its sizes, or one is given twice.
    """
    found: dict[str, DimRange] = {}
    for entry in text.split(","):
        name, _, sizes = (part.strip() for part in entry.partition("="))
        numbers = sizes.split(":")
        if not name or not all(part.isascii() and part.isdecimal() for part in numbers):
            raise ValueError(f"{entry!r} is not NAME=MIN:USUAL:MAX")
        if name in found:
            raise ValueError(f"the dimension {name!r} is given twice")
        values = [int(part) for part in numbers]
        if len(values) == 1:
            values *= 3
        if len(values) != 3 or values != sorted(values) or values[0] < 1 or values[2] >= 1 << 31:
            raise ValueError(f"{entry!r} is not NAME=MIN:USUAL:MAX with sizes that ascend from 1")
        found[name] = DimRange(*values)
    return tuple(sorted(found.items()))


def _profile_text(profile: Profile) -> str:
    return ",".join(f"{name}={sizes}" for name, sizes in profile)


def parse_bytes(written: object) -> int:
    """Read "4GB", "512MB" or a number of bytes (1 GB is 2**30).

    Raises:
        ValueError: It is none of these.
    """
    number, shift = str(written).strip().upper(), 0
    for unit, bits in _UNITS.items():
        if number.endswith(unit):
            number, shift = number.removesuffix(unit).strip(), bits
    if not (number.isascii() and number.isdecimal()) or not 0 < int(number) << shift < 1 << 62:
        raise ValueError(f"{str(written)!r} is not a size such as 4GB or 512MB")
    return int(number) << shift


@dataclass(frozen=True)
class TensorRTOptions:
    """The options of a TensorRT target.

    Attributes:
        flavour: "rtx" or "classic"; None for the one that is installed.
        sm: Compute capabilities without the point: ("86", "120").
        profile: Optimisation profiles as they were written, each a tuple of dimension and range.
        builder_level: Optimisation level of the builder, 0 to 5; None for its own.
        workspace: Bytes that a kernel may use while it runs; None for no limit.
        weight_streaming: Let the runtime keep weights in host memory.
        timing_cache: A file with measured kernel times, kept between builds.
        version_compatible: Let later versions of the same major number read the plan.
        hardware_compatible: One of `HARDWARE_LEVELS`.
        strip_weights: Keep the weights in the artifact alone, and refit the plan at load.
    """

    flavour: str | None = option(
        None,
        "tensorrt: rtx or classic. [default: the one that is installed]",
        parse=_one_of(RTX, CLASSIC),
        words=lambda asked: asked.flavour or "the one that is installed",
    )
    sm: tuple[str, ...] = option(
        (),
        "tensorrt rtx: GPUs to build for. [default: 86,89,120]",
        joined=True,
        parse=parse_capabilities,
        words=lambda asked: (
            "the GPU of this machine"
            if asked.flavour == CLASSIC
            else ", ".join(asked.capabilities())
        ),
    )
    profile: tuple[Profile, ...] = option(
        (),
        "tensorrt: batch=1:8:64,sequence=16:128:512; repeatable. [default: the source's bounds]",
        parse=parse_profile,
        wrong="not a list of texts such as batch=1:8:64",
        words=lambda asked: (
            "; ".join(map(_profile_text, asked.profile)) or "from the source's bounds"
        ),
    )
    builder_level: int | None = option(
        None,
        "tensorrt: optimisation level, 0 to 5.",
        bounds=(0, HIGHEST_LEVEL),
        wrong=f"not a level from 0 to {HIGHEST_LEVEL}",
    )
    workspace: int | None = option(
        None, "tensorrt: memory for a kernel while it runs, e.g. 4GB.", parse=parse_bytes
    )
    weight_streaming: bool = option(False, "tensorrt: let the runtime keep weights in host memory.")
    timing_cache: Path | None = option(
        None, "tensorrt classic: measured kernel times, kept between builds."
    )
    version_compatible: bool = option(False, "tensorrt classic: later versions read the plan.")
    hardware_compatible: str = option(
        "none",
        "tensorrt classic: ampere_plus or same_compute_capability.",
        parse=_one_of(*HARDWARE_LEVELS),
    )
    strip_weights: bool = option(
        False, "tensorrt classic: refit the plan with the artifact's weights at load."
    )

    def refusal(self, flavour: str) -> Unsupported | None:
        """Return which option `flavour` does not have, and why, or None."""
        if flavour == CLASSIC:
            if self.sm:
                return Unsupported(
                    "--sm: TensorRT builds for the GPU of the machine that it runs on; only the "
                    "flavour rtx builds for others",
                    _OTHER_SM,
                )
            return None
        for name, (flag, reason) in _CLASSIC_ONLY.items():
            if getattr(self, name) not in (None, False, "none"):
                return Unsupported(
                    f"{flag}: TensorRT for RTX does not have it: {reason}", _CLASSIC_HAS_IT
                )
        unknown = [name for name in self.sm if name not in RTX_CAPABILITIES]
        if unknown:
            return Unsupported(
                f"--sm {unknown[0]}: TensorRT for RTX builds for {', '.join(RTX_CAPABILITIES)}"
                + (": Hopper is for the flavour classic" if unknown[0] == "90" else ""),
                _OTHER_SM,
            )
        return None

    def capabilities(self) -> tuple[str, ...]:
        """Return the compute capabilities to build for, in ascending order: ("8.6", "12.0")."""
        return tuple(
            f"{name[:-1]}.{name[-1]}"
            for name in sorted(set(self.sm or DEFAULT_CAPABILITIES), key=int)
        )


def choose_flavour(asked: str | None, installed: Mapping[str, bool]) -> str:
    """Return the flavour to build with.

    Args:
        asked: "rtx", "classic", or None to leave it to what is installed.
        installed: Whether each is.

    Raises:
        UnsupportedTargetError: `asked` is not a flavour.
    """
    if asked is not None:
        if asked not in FLAVOURS:
            raise UnsupportedTargetError(
                f"{asked!r} is not a flavour of TensorRT", fix=f"use one of: {', '.join(FLAVOURS)}"
            )
        return asked
    return CLASSIC if installed[CLASSIC] and not installed[RTX] else RTX
