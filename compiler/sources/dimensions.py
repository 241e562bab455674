"""Dynamic dimensions: their names and bounds, and example inputs at other shapes.

Exporters bake dimensions in without saying so. The only proof that a dimension is dynamic
is to run the graph at other sizes, so the compiler needs valid inputs at other sizes. They
are made out of the example's own values, because random token ids or masks may be invalid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from leptonc.compiler.errors import RecipeError
from leptonc.runtime.arrays import Arrays

# A dynamic dimension that is never tried beyond this size grows no further than this in probes.
PROBE_GROWTH = 3
LARGEST_BOUND = 1 << 62


@dataclass(frozen=True)
class DynamicDim:
    """A named dimension with inclusive bounds; `max` is None when it is unbounded."""

    name: str
    min: int = 1
    max: int | None = None

    def clamp(self, size: int) -> int:
        """Return the size nearest to `size` inside the bounds."""
        size = max(size, self.min)
        return size if self.max is None else min(size, self.max)


DynamicAxes = Mapping[str, Mapping[int, DynamicDim]]


def parse_dynamic_axes(declared: object, inputs: Mapping[str, np.ndarray]) -> DynamicAxes:
    """Check what a recipe's `dynamic_shapes()` returned.

    Args:
        declared: `{input: {axis: "name" | ("name", min, max)}}`.
        inputs: The example inputs by name.

    Returns:
        The dynamic dimensions; one whose bounds are equal is static and left out.

    Raises:
        RecipeError: An unknown input, an axis out of range, bounds that make no sense or do
            not contain the example, or one name with two sets of bounds or two sizes.
    """
    if not isinstance(declared, Mapping):
        raise RecipeError(
            f"dynamic_shapes() returned {type(declared).__name__}, not a dict",
            fix='return {input: {axis: "name"}} or {input: {axis: ("name", min, max)}}',
        )
    axes: dict[str, dict[int, DynamicDim]] = {}
    known: dict[str, tuple[DynamicDim, int]] = {}
    for name, per_axis in declared.items():
        if name not in inputs:
            raise RecipeError(
                f"dynamic_shapes() names an input {name!r} that example_inputs() does not have",
                fix=f"use one of: {', '.join(inputs)}",
            )
        if not isinstance(per_axis, Mapping):
            raise RecipeError(
                f"dynamic_shapes()[{name!r}] is {type(per_axis).__name__}, not a dict of axes",
            )
        shape = inputs[name].shape
        for axis, spec in per_axis.items():
            where = f"dynamic_shapes()[{name!r}][{axis!r}]"
            if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < len(shape):
                raise RecipeError(f"no such axis; the example has shape {list(shape)}", where=where)
            dim = _parse_dim(spec, where)
            _check_dim(dim, shape[axis], known, where)
            if dim.min != dim.max:
                axes.setdefault(name, {})[axis] = dim
    return axes


def _parse_dim(spec: object, where: str) -> DynamicDim:
    if isinstance(spec, str):
        spec = (spec, 1, None)
    if not isinstance(spec, tuple | list) or len(spec) != 3:
        raise RecipeError("not a dimension", where=where, fix='write "name" or ("name", min, max)')
    name, low, high = spec
    if not isinstance(name, str) or not name.isidentifier():
        raise RecipeError(f"the dimension name {name!r} is not an identifier", where=where)
    if isinstance(low, bool) or not isinstance(low, int) or low < 1:
        raise RecipeError(f"the lower bound {low!r} is not a positive integer", where=where)
    if high is not None and (isinstance(high, bool) or not isinstance(high, int) or high < low):
        raise RecipeError(f"the upper bound {high!r} is below the lower bound {low}", where=where)
    if max(low, high or 0) > LARGEST_BOUND:
        raise RecipeError(
            f"the bounds {low!r} and {high!r} exceed any size",
            where=where,
            fix="leave the dimension unbounded: None as its upper bound",
        )
    return DynamicDim(name, low, high)


def _check_dim(
    dim: DynamicDim, size: int, known: dict[str, tuple[DynamicDim, int]], where: str
) -> None:
    if dim.clamp(size) != size:
        raise RecipeError(
            f"the example has size {size} in dimension {dim.name!r}, outside {_bounds(dim)}",
            where=where,
        )
    earlier = known.setdefault(dim.name, (dim, size))
    if earlier[0] != dim:
        raise RecipeError(
            f"dimension {dim.name!r} has bounds {_bounds(dim)} here and "
            f"{_bounds(earlier[0])} elsewhere",
            where=where,
            fix="give one name the same bounds everywhere, or use two names",
        )
    if earlier[1] != size:
        raise RecipeError(
            f"dimension {dim.name!r} has size {size} here and {earlier[1]} elsewhere "
            "in the example inputs",
            where=where,
        )


def _bounds(dim: DynamicDim) -> str:
    return f"{dim.min}..{'any' if dim.max is None else dim.max}"


def example_sizes(inputs: Mapping[str, np.ndarray], axes: DynamicAxes) -> dict[str, int]:
    """Return the size that each named dimension has in the example inputs."""
    return {
        dim.name: inputs[name].shape[axis]
        for name, per_axis in axes.items()
        for axis, dim in per_axis.items()
    }


def named_dims(axes: DynamicAxes) -> dict[str, DynamicDim]:
    """Return the distinct dynamic dimensions by name, in order of first use."""
    return {dim.name: dim for per_axis in axes.values() for dim in per_axis.values()}


def probe_sizes(inputs: Mapping[str, np.ndarray], axes: DynamicAxes) -> list[dict[str, int]]:
    """Return two further settings of the dynamic dimensions, inside their bounds.

    One goes down and one up, by amounts that differ from dimension to dimension, so that two
    dimensions that happen to be equal in the example come apart. An entry that would repeat
    the example or another entry is left out; without dynamic dimensions the list is empty.
    """
    sizes = example_sizes(inputs, axes)
    dims = named_dims(axes)
    smaller, larger = {}, {}
    for index, (name, dim) in enumerate(dims.items()):
        size = sizes[name]
        smaller[name] = dim.clamp(max(1, size - 1 - index % PROBE_GROWTH))
        larger[name] = dim.clamp(size + 1 + index % PROBE_GROWTH)
        if smaller[name] == size:
            smaller[name] = dim.clamp(size + PROBE_GROWTH + 1 + index)
        if larger[name] == size:
            larger[name] = dim.clamp(max(1, size - PROBE_GROWTH - 1 - index))
    probes: list[dict[str, int]] = []
    for candidate in (smaller, larger):
        if candidate != sizes and candidate not in probes:
            probes.append(candidate)
    return probes


def resize_inputs(
    inputs: Mapping[str, np.ndarray], axes: DynamicAxes, sizes: Mapping[str, int]
) -> Arrays:
    """Return the example inputs with each named dimension at the size given in `sizes`.

    A dimension shrinks by cutting and grows by repeating; each repetition is rolled along the
    last axis of the array, so that rows differ and a row that leaks into another is seen.
    """
    resized: Arrays = {}
    for name, array in inputs.items():
        result = array
        for axis, dim in axes.get(name, {}).items():
            result = _resize_axis(result, axis, sizes.get(dim.name, array.shape[axis]))
        resized[name] = np.array(result, order="C", copy=True)
    return resized


def _resize_axis(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    current = array.shape[axis]
    if size <= current:
        return array[(slice(None),) * axis + (slice(0, size),)]
    if current == 0:
        grown = (*array.shape[:axis], size, *array.shape[axis + 1 :])
        return np.zeros(grown, dtype=array.dtype)
    roll_axis = array.ndim - 1
    copies = [
        np.roll(array, turn, axis=roll_axis) if roll_axis != axis else array
        for turn in range(-(-size // current))
    ]
    return np.concatenate(copies, axis=axis)[(slice(None),) * axis + (slice(0, size),)]
