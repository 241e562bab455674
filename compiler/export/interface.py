"""The signature of an artifact, read off the graph and the declared dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from leptonc.compiler.sources.dimensions import DynamicAxes, DynamicDim, named_dims
from leptonc.runtime.artifact.signature import Dim, Signature, TensorSpec
from leptonc.runtime.errors import UnsupportedError


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


def signature_from(entry: Mapping[str, Any]) -> Signature:
    """Return the signature that `signature_of` wrote down."""
    return Signature(
        *(
            tuple(
                TensorSpec(
                    each["name"],
                    each["dtype"],
                    tuple(
                        Dim(**size) if isinstance(size, dict) else size for size in each["shape"]
                    ),
                )
                for each in entry[role]
            )
            for role in ("inputs", "outputs")
        )
    )


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
