"""The settings of a TensorRT target: read from flags and from TOML, and tied to the source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from leptonc.backends.base import DimProfile, DimRange
from leptonc.backends.tensorrt.options import (
    FLAVOURS,
    HARDWARE_LEVELS,
    HIGHEST_LEVEL,
    TensorRTOptions,
    parse_bytes,
    parse_capabilities,
    parse_profile,
)
from leptonc.compiler.errors import UsageError
from leptonc.compiler.sources.dimensions import DynamicAxes, named_dims

_LARGEST = (1 << 31) - 1


def read_options(values: Mapping[str, Any], where: str) -> TensorRTOptions:
    """Return the options that `values` spells.

    Args:
        values: By field name: texts as on the command line, or what TOML has for them.
        where: Where they stand, for errors.

    Raises:
        UsageError: A value makes no sense.
    """
    read = {}
    for name, value in values.items():
        try:
            read[name] = _READERS[name](value)
        except ValueError as error:
            raise UsageError(f"{name.replace('_', '-')}: {error}", where=where) from error
    return TensorRTOptions(**read)


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return read


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _level(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= HIGHEST_LEVEL:
        raise ValueError(f"{value!r} is not a level from 0 to {HIGHEST_LEVEL}")
    return value


def _capabilities(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    return parse_capabilities(",".join(str(each) for each in listed))


def _profiles(value: Any) -> tuple[tuple[tuple[str, DimRange], ...], ...]:
    listed = [value] if isinstance(value, str) else value
    if not all(isinstance(each, str) for each in listed):
        raise ValueError(f"{value!r} is not a list of texts such as batch=1:8:64")
    return tuple(parse_profile(each) for each in listed)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "flavour": _one_of(*FLAVOURS),
    "sm": _capabilities,
    "profile": _profiles,
    "builder_level": _level,
    "workspace": lambda value: parse_bytes(str(value)),
    "weight_streaming": _flag,
    "timing_cache": lambda value: Path(str(value)),
    "version_compatible": _flag,
    "hardware_compatible": _one_of(*HARDWARE_LEVELS),
    "strip_weights": _flag,
}


def describe_options(options: TensorRTOptions) -> dict[str, str]:
    """Return the options in words, to be echoed before work starts."""
    profiles = [
        ",".join(f"{name}={sizes}" for name, sizes in profile) for profile in options.profile
    ]
    described = {
        "flavour": options.flavour or "the one that is installed",
        "sm": ", ".join(options.capabilities())
        if options.flavour != "classic"
        else "the GPU of this machine",
        "profile": "; ".join(profiles) or "from the source's bounds",
    }
    plain = TensorRTOptions()
    for name in _READERS:
        value = getattr(options, name)
        if name not in described and value != getattr(plain, name):
            described[name.replace("_", "-")] = "yes" if value is True else str(value)
    return described


def resolve_profiles(
    options: TensorRTOptions, axes: DynamicAxes, sizes: Mapping[str, int]
) -> tuple[DimProfile, ...]:
    """Return the profiles with a range for every dynamic dimension of the source.

    A dimension that a profile does not name has the range of the source's bounds, and its size in
    the example as the most usual one.

    Args:
        options: With the profiles as they were written.
        axes: The dynamic dimensions of the source.
        sizes: Their sizes in the example inputs.

    Raises:
        UsageError: A profile names no dimension of the source, or leaves its bounds; or a
            dimension without an upper bound has no range.
    """
    dims = named_dims(axes)
    profiles: list[DimProfile] = []
    for written in options.profile or ((),):
        profile = dict(written)
        for name, asked in profile.items():
            dim = dims.get(name)
            if dim is None:
                raise UsageError(
                    f"--profile names a dimension {name!r} that the source does not have",
                    where=f"its dynamic dimensions are: {', '.join(dims) or 'none'}",
                    fix="use one of these, or declare it in dynamic_shapes()",
                )
            if asked.min < dim.min or (dim.max is not None and asked.max > dim.max):
                raise UsageError(
                    f"--profile {name}={asked} leaves the bounds of the source, "
                    f"{dim.min} to {dim.max or 'any'}",
                    fix="narrow the profile, or widen the bounds in dynamic_shapes()",
                )
        for name, dim in dims.items():
            if name in profile:
                continue
            if dim.max is None or dim.max > _LARGEST:
                raise UsageError(
                    f"the dimension {name!r} has no upper bound, and TensorRT builds for ranges",
                    fix=f"give its smallest, usual and largest size: --profile {name}="
                    f"{dim.min}:{sizes[name]}:{sizes[name] * 8}, or bounds in dynamic_shapes()",
                )
            profile[name] = DimRange(dim.min, sizes[name], dim.max)
        profiles.append(dict(sorted(profile.items())))
    return tuple(profiles)
