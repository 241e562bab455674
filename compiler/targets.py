"""What to build for: the targets of a compile, with what the source says of sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from leptonc.backends.base import Target
from leptonc.backends.rows import parse_target
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.settings.tensorrt import resolve_profiles
from leptonc.compiler.sources.dimensions import example_sizes
from leptonc.compiler.sources.source import Source
from leptonc.runtime.errors import UnsupportedError


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
        replace(target, options=settings.tensorrt)
        if settings.tensorrt is not None and target.options is not None
        else target
        for target in targets
    )


def with_profiles(targets: Sequence[Target], source: Source) -> tuple[Target, ...]:
    """Give the targets whose engine builds for ranges of sizes those of the source.

    Raises:
        UsageError: The profiles that were asked for do not fit the source.
    """
    sizes = example_sizes(source.inputs, source.axes)
    return tuple(
        replace(target, profiles=resolve_profiles(target.options, source.axes, sizes))
        if target.row.needs_ranges
        else target
        for target in targets
    )
