"""The signature of an artifact, read off the graph and the declared dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import onnx_ir as ir

from leptonc.compiler.sources.dimensions import DynamicAxes, DynamicDim, named_dims
from leptonc.runtime.artifact.signature import Dim, Signature, TensorSpec
from leptonc.runtime.errors import UnsupportedError


def signature_of(model: ir.Model, axes: DynamicAxes) -> Signature:
    """Return what a model takes and gives.

    Args:
        model: The optimised graph; an input with a default initializer is not part of it.
        axes: The declared dynamic dimensions of the inputs.

    Raises:
        UnsupportedError: An input or output is not a tensor.
    """
    dims = named_dims(axes)
    inputs = (
        _tensor(value, dims, axes.get(str(value.name), {}), "input")
        for value in model.graph.inputs
        if value.name not in model.graph.initializers
    )
    outputs = (_tensor(value, dims, {}, "output") for value in model.graph.outputs)
    return Signature(tuple(inputs), tuple(outputs))


def signature_entry(signature: Signature) -> dict[str, Any]:
    """Return what the manifest says of it (docs/artifact-format.md)."""
    entries = {role: [asdict(spec) for spec in specs] for role, specs in vars(signature).items()}
    for entry in (*entries["inputs"], *entries["outputs"]):
        entry["shape"] = list(entry["shape"])
    return entries


def _tensor(
    value: ir.Value,
    dims: Mapping[str, DynamicDim],
    own: Mapping[int, DynamicDim],
    role: str,
) -> TensorSpec:
    if not isinstance(value.type, ir.TensorType) or value.dtype is None:
        raise UnsupportedError(
            f"{role} {value.name!r} has type {value.type}; only tensors can cross the interface",
            where=str(value.name),
            fix="change the model so that it takes and returns tensors",
        )
    shape: list[int | Dim] = []
    for axis, size in enumerate(value.shape or ()):
        if isinstance(size, int):
            shape.append(size)
            continue
        name = own[axis].name if axis in own else size.value or f"{value.name}_dim_{axis}"
        dim = dims.get(name, DynamicDim(name, 0, None))
        shape.append(Dim(dim.name, dim.min, dim.max))
    text = value.dtype == ir.DataType.STRING
    dtype = "str" if text else str(value.dtype.numpy().name)
    return TensorSpec(str(value.name), dtype, tuple(shape))
