"""Chooses the optimisation profile for the shapes of a call.

Among the profiles that take all shapes, the one whose best shapes are nearest is fastest: the
engine tuned its kernels there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2
from typing import Any

from leptonc.runtime.engines.tensorrt.plan_demands import Profile, ShapeRange
from leptonc.runtime.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]


def choose_profile(profiles: Sequence[Profile], shapes: Shapes) -> int:
    """Return the index of the profile to run these shapes with.

    Of those that take them, the one with the smallest `tuning_distance`, and of equals the first.

    Raises:
        InputError: No profile takes them; names the nearest and the axis that is outside.
    """
    fitting = [
        (tuning_distance(profile, shapes), index)
        for index, profile in enumerate(profiles)
        if all(bounds.admits(shapes[name]) for name, bounds in profile.items())
    ]
    if fitting:
        return min(fitting)[1]
    nearest = min(
        range(len(profiles)), key=lambda index: (_outside(profiles[index], shapes), index)
    )
    raise _outside_every_profile(profiles, shapes, nearest)


def tuning_distance(profile: Profile, shapes: Shapes) -> float:
    """Return how far shapes are from those the profile was tuned at, in doublings over all axes."""
    return sum(
        abs(log2((size + 1) / (best + 1)))
        for name, bounds in profile.items()
        for size, best in zip(shapes[name], bounds.opt, strict=True)
    )


def _outside(profile: Profile, shapes: Shapes) -> int:
    """Return by how many elements the shapes leave the profile, summed over all axes."""
    return sum(
        _beyond(size, low, high)
        for name, bounds in profile.items()
        for size, low, high in _axes(shapes[name], bounds)
    )


def _axes(shape: tuple[int, ...], bounds: ShapeRange) -> Any:
    return zip(shape, bounds.min, bounds.max, strict=True)


def _beyond(size: int, low: int, high: int) -> int:
    return max(low - size, size - high, 0)


def _outside_every_profile(profiles: Sequence[Profile], shapes: Shapes, nearest: int) -> InputError:
    profile = profiles[nearest]
    misfits = [
        f"{name!r} has {size} in axis {axis}, where it takes {low} to {high}"
        for name, bounds in profile.items()
        for axis, (size, low, high) in enumerate(_axes(shapes[name], bounds))
        if _beyond(size, low, high)
    ]
    given = ", ".join(f"{name} {list(shapes[name])}" for name in profile)
    ranges = "; ".join(
        f"{name} {list(bounds.min)} to {list(bounds.max)}" for name, bounds in profile.items()
    )
    count = len(profiles)
    return InputError(
        f"no optimisation profile takes these shapes ({count} in the plan); "
        f"in the nearest, profile {nearest}, {misfits[0]}",
        where=f"given: {given}; profile {nearest}: {ranges}",
        fix="pad or cut the arrays, or compile the model with a `--profile` that holds them",
    )
