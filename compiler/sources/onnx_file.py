"""An .onnx file as a source, with its weights inside or in files beside it.

The file comes from anywhere: nothing in it is trusted. External data must be regular files
inside the model's own folder, long enough for the tensors that they are said to hold.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from leptonc.compiler.errors import OnnxFileError
from leptonc.compiler.running.engine import engine
from leptonc.compiler.sources.dimensions import DynamicDim
from leptonc.compiler.sources.external_data import check_external_data, embed_small
from leptonc.compiler.sources.files import hash_file, require_file
from leptonc.compiler.sources.source import Source
from leptonc.runtime.arrays import Arrays, load_named_arrays
from leptonc.runtime.errors import UnsupportedError

BATCH_SIZE = 2
SPATIAL_SIZE = 64
LENGTH = 8
# No example made up here is larger than this.
EXAMPLE_ELEMENTS = 1 << 28


def open_onnx(spec: str, inputs: Path | None) -> Source:
    """Read an .onnx file lazily and check its external data.

    Example inputs come from `inputs`; without them they are drawn with a fixed seed, which is
    enough to compare two graphs and never used as calibration data.

    Raises:
        OnnxFileError: Not ONNX, truncated, without a graph, or with external data that is
            missing, too short or outside the folder.
    """
    path = Path(spec)
    require_file(path)
    model, data_files = _read(path)
    digest = hashlib.sha256()
    for file in (path, *data_files):
        hash_file(file, digest)
    axes = _axes(model)
    names = [str(value.name) for value in _true_inputs(model)]
    example = load_named_arrays(inputs, names) if inputs else _synthetic(model, axes)
    tensors = [
        value.const_value for graph in model.graphs() for value in graph.initializers.values()
    ]
    return Source(
        kind="onnx",
        name=path.stem,
        inputs=example,
        axes=axes,
        reference=engine.file_as_written(path, model),
        fingerprint=digest.hexdigest(),
        graph=model,
        weight_bytes=sum(tensor.nbytes for tensor in tensors if tensor is not None),
    )


def read_onnx(path: Path) -> ir.Model:
    """Read a graph, with its weights left where they are.

    Raises:
        OnnxFileError: Not ONNX, without outputs or an opset, or with external data that is
            missing, too short or outside the folder.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[ir.Model, list[Path]]:
    try:
        proto = onnx.load_model(path, format="protobuf", load_external_data=False)
        data_files = check_external_data(proto, path)
        model = ir.from_proto(proto)
        model.graph.sort()
    except (DecodeError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise OnnxFileError(
            f"this is not a valid ONNX model: {_innermost(error)}",
            where=str(path),
            fix="the file may be truncated: copy it again, or export it again",
        ) from error
    if not model.graph.outputs or not model.opset_imports:
        raise OnnxFileError(
            "the file holds no ONNX graph with outputs and an opset",
            where=str(path),
            fix="the file may be truncated or not be ONNX at all: export it again",
        )
    _require_representable(proto, path)
    ir.external_data.set_base_dir(model.graph, path.resolve().parent)
    embed_small(model)
    for value in (*model.graph.inputs, *model.graph.outputs):
        _forget_negative_sizes(value)
    return model, data_files


def _require_representable(proto: onnx.ModelProto, path: Path) -> None:
    names = [output.name for output in proto.graph.output]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OnnxFileError(
            f"two outputs of the graph are named {twice[0]!r}",
            where=str(path),
            fix="give each output a name of its own, with an Identity node if they are the same",
        )
    if proto.graph.sparse_initializer:
        raise UnsupportedError(
            f"the initializer {proto.graph.sparse_initializer[0].values.name!r} is sparse",
            where=str(path),
            fix="store it as a dense tensor",
        )


def _forget_negative_sizes(value: ir.Value) -> None:
    """Read a size of -1, which some exporters write, as one that is not known."""
    if value.shape is not None and any(isinstance(size, int) and size < 0 for size in value.shape):
        value.shape = ir.Shape(
            [None if isinstance(size, int) and size < 0 else size for size in value.shape]
        )


def _innermost(error: BaseException) -> str:
    """Return the message of the first cause: outer ones only say which function was called."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _true_inputs(model: ir.Model) -> list[ir.Value]:
    """Return the inputs that a caller must give: those without a default initializer."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def _axes(model: ir.Model) -> dict[str, dict[int, DynamicDim]]:
    axes: dict[str, dict[int, DynamicDim]] = {}
    for value in _true_inputs(model):
        if value.shape is None:
            continue
        for axis, size in enumerate(value.shape):
            if isinstance(size, int):
                continue
            name = size.value or f"{value.name}_dim_{axis}"
            axes.setdefault(str(value.name), {})[axis] = DynamicDim(name, 1, None)
    return axes


def _synthetic(model: ir.Model, axes: Mapping[str, Mapping[int, DynamicDim]]) -> Arrays:
    generator = np.random.default_rng(0)
    sizes: dict[str, int] = {}
    arrays: Arrays = {}
    for value in _true_inputs(model):
        name = str(value.name)
        if not isinstance(value.type, ir.TensorType) or value.dtype is None:
            raise UnsupportedError(
                f"input {name!r} has type {value.type}; only tensors can be inputs",
                where=name,
                fix="change the graph so that every input is a tensor",
            )
        if value.shape is None:
            raise OnnxFileError(
                f"input {name!r} has no shape, so no example can be made for it",
                where=name,
                fix="give example inputs: --inputs example.npz",
            )
        shape = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int):
                shape.append(size)
                continue
            default = BATCH_SIZE if axis == 0 else SPATIAL_SIZE if len(value.shape) > 3 else LENGTH
            shape.append(sizes.setdefault(axes[name][axis].name, default))
        if math.prod(shape) > EXAMPLE_ELEMENTS:
            raise OnnxFileError(
                f"input {name!r} has shape {shape}: too large for an example to be made up",
                where=name,
                fix="give example inputs: --inputs example.npz",
            )
        arrays[name] = _draw(generator, value.dtype, tuple(shape), name)
    return arrays


def _draw(
    generator: np.random.Generator, dtype: ir.DataType, shape: tuple[int, ...], name: str
) -> np.ndarray:
    """Draw floats from a normal distribution, and whole numbers from {0, 1}: valid indices."""
    if dtype == ir.DataType.STRING:
        return generator.choice(np.array(["a", "b"], dtype=object), shape)
    if dtype in {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}:
        return np.asarray(generator.standard_normal(shape)).astype(dtype.numpy())
    if dtype.is_integer() or dtype == ir.DataType.BOOL:
        return np.asarray(generator.integers(0, 2, shape)).astype(dtype.numpy())
    raise UnsupportedError(
        f"input {name!r} has dtype {dtype}, which NumPy does not have",
        where=name,
        fix="insert a Cast so that the graph takes float32",
    )
