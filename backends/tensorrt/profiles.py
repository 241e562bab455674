"""Optimisation profiles: from ranges of named dimensions to ranges of the inputs' shapes."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from leptonc.backends.base import DimProfile
from leptonc.backends.errors import UnsupportedInterfaceError, UnsupportedTargetError

# For each input its shapes by "min", "opt" and "max", as the manifest holds them.
Ranges = Mapping[str, Mapping[str, list[int]]]
MOST_DIMENSIONS = 8


def input_ranges(model: ir.Model, profile: DimProfile) -> Ranges:
    """Return the range of every input's shape.

    Args:
        model: Its inputs have dimensions that are known or named.
        profile: A range for each name.

    Raises:
        UnsupportedTargetError: A dimension has no range.
        UnsupportedInterfaceError: An input has no known rank, or one that TensorRT cannot take.
    """
    found: dict[str, Mapping[str, list[int]]] = {}
    for value in model.graph.inputs:
        name = str(value.name)
        if name in model.graph.initializers:
            continue
        if value.shape is None or len(value.shape) > MOST_DIMENSIONS:
            raise UnsupportedInterfaceError(
                f"the input {name!r} has "
                + (
                    "no known rank"
                    if value.shape is None
                    else f"rank {len(value.shape)}; TensorRT takes up to {MOST_DIMENSIONS}"
                ),
                where=name,
                fix="declare its shape, or change the model",
            )
        shape = tuple(value.shape)
        found[name] = {
            bound: [_size(size, bound, profile, name, axis) for axis, size in enumerate(shape)]
            for bound in ("min", "opt", "max")
        }
    return found


def _size(size: int | ir.SymbolicDim, bound: str, profile: DimProfile, name: str, axis: int) -> int:
    if isinstance(size, int):
        return size
    found = profile.get(size.value or "")
    if found is None:
        raise UnsupportedTargetError(
            f"axis {axis} of the input {name!r} ({size.value or 'without a name'}) has no range, "
            "and TensorRT builds for ranges of sizes",
            where=f"input {name!r}",
            fix=f"give it one: --profile {size.value or 'NAME'}=1:8:64"
            if size.value
            else "name the dimension in dynamic_shapes()",
        )
    chosen: int = getattr(found, bound)
    return chosen
