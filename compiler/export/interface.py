"""The signature of an artifact, read off the graph and the declared dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from leptonc.compiler.sources.dimensions import DynamicAxes, DynamicDim, named_dims
from leptonc.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from leptonc.compiler.verification.trials import Trial


def signature_of(model: ir.Model, axes: DynamicAxes) -> dict[str, Any]:
    """Return the `signature` entry of the manifest (docs/artifact-format.md).

    Args:
        model: The optimised graph; an input with a default initializer is not part of it.
        axes: The declared dynamic dimensions of the inputs.

    Raises:
        UnsupportedError: An input or output is not a tensor.
    """
    dims = named_dims(axes)
    inputs = [
        _tensor(value, dims, axes.get(str(value.name), {}), "input")
        for value in model.graph.inputs
        if value.name not in model.graph.initializers
    ]
    outputs = [_tensor(value, dims, {}, "output") for value in model.graph.outputs]
    return {"inputs": inputs, "outputs": outputs}


def settle_outputs(model: ir.Model, trials: Sequence[Trial]) -> None:
    """Correct what a file says about its outputs by what it returned.

    A missing dtype or shape is filled in, and a size that one of `trials` contradicts becomes
    unknown: whoever allocates by the signature must be able to believe it.

    Args:
        model: The graph; changed in place.
        trials: Runs of the source, with the sizes of its named dimensions.
    """
    for value in model.graph.outputs:
        name = str(value.name)
        seen = [(trial.sizes, trial.expected[name]) for trial in trials if name in trial.expected]
        if not seen or not isinstance(seen[0][1], np.ndarray):
            continue
        array = seen[0][1]
        if value.type is None:
            dtype = (
                ir.DataType.STRING
                if array.dtype.kind in "OU"
                else ir.DataType.from_numpy(array.dtype)
            )
            value.type = ir.TensorType(dtype)
        declared = value.shape
        if declared is None or len(declared) != array.ndim:
            value.shape = ir.Shape([None] * array.ndim)
            continue
        value.shape = ir.Shape(
            [
                size
                if all(_agrees(size, sizes, each.shape[axis]) for sizes, each in seen)
                else None
                for axis, size in enumerate(declared)
            ]
        )


def _agrees(size: int | ir.SymbolicDim, sizes: Mapping[str, int], actual: int) -> bool:
    if isinstance(size, int):
        return size == actual
    return size.value is None or sizes.get(size.value, actual) == actual


def _tensor(value: ir.Value, dims: dict[str, DynamicDim], own: Any, role: str) -> dict[str, Any]:
    if not isinstance(value.type, ir.TensorType) or value.dtype is None:
        raise UnsupportedError(
            f"{role} {value.name!r} has type {value.type}; only tensors can cross the interface",
            where=str(value.name),
            fix="change the model so that it takes and returns tensors",
        )
    shape: list[Any] = []
    for axis, size in enumerate(value.shape or ()):
        if isinstance(size, int):
            shape.append(size)
            continue
        name = own[axis].name if axis in own else size.value or f"{value.name}_dim_{axis}"
        dim = dims.get(name, DynamicDim(name, 0, None))
        shape.append({"name": dim.name, "min": dim.min, "max": dim.max})
    return {"name": value.name, "dtype": _numpy_name(value.dtype), "shape": shape}


def _numpy_name(dtype: ir.DataType) -> str:
    if dtype == ir.DataType.STRING:
        return "str"
    return str(dtype.numpy().name)
