"""What to build for: the targets of a compile, with what the source says of sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from leptonc.backends.base import DimProfile, DimRange, Target
from leptonc.backends.rows import parse_target
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.sources.dimensions import DynamicAxes, example_sizes, named_dims
from leptonc.compiler.sources.source import Source
from leptonc.runtime.errors import UnsupportedError

_LARGEST = (1 << 31) - 1


def targets_of(settings: CompileSettings) -> tuple[Target, ...]:
    """Return the targets in the order in which they were given.

    Raises:
        UnsupportedError: One is given twice, or is not known.
    """
    if len(set(settings.target)) != len(settings.target):
        raise UnsupportedError(
            f"a target is given twice: {', '.join(settings.target)}", fix="give each target once"
        )
    targets = (
        parse_target(name, precision=settings.precision, require=settings.require)
        for name in settings.target
    )
    return tuple(
        replace(target, options=settings.options.get(target.backend, target.options))
        for target in targets
    )


def with_profiles(targets: Sequence[Target], source: Source) -> tuple[Target, ...]:
    """Give the targets whose engine builds for ranges of sizes those of the source.

    Raises:
        UsageError: The profiles that were asked for do not fit the source.
    """
    sizes = example_sizes(source.inputs, source.axes)
    return tuple(
        replace(
            target,
            profiles=resolve_profiles(getattr(target.options, "profile", ()), source.axes, sizes),
        )
        if target.row.needs_ranges
        else target
        for target in targets
    )


def resolve_profiles(
    written: Sequence[Iterable[tuple[str, DimRange]]], axes: DynamicAxes, sizes: Mapping[str, int]
) -> tuple[DimProfile, ...]:
    """Return the profiles with a range for every dynamic dimension of the source.

    A dimension that a profile does not name has the range of the source's bounds, and its size in
    the example as the most usual one.

    Args:
        written: The profiles that were asked for: some dimensions with their ranges. None of them
            is one that names nothing.
        axes: The dynamic dimensions of the source.
        sizes: Their sizes in the example inputs.

    Raises:
        UsageError: A profile names no dimension of the source, or leaves its bounds; or a
            dimension without an upper bound has no range.
    """
    dims = named_dims(axes)
    profiles: list[DimProfile] = []
    for each in written or ((),):
        profile = dict(each)
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
