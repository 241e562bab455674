"""The external data of an .onnx file: where it is, and whether it can be trusted to be there.

A location is a path chosen by whoever wrote the file. Only regular files inside the model's
own folder, long enough for their tensors, are accepted; the check runs on the protobuf,
before anything resolves a path.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from leptonc.compiler.errors import OnnxFileError

SMALL = 1 << 16


def check_external_data(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Check the place of every external tensor of `model`, which was read from `path`.

    Returns:
        The distinct data files, in order of first use.

    Raises:
        OnnxFileError: Data that is missing, too short, or outside the model's folder.
    """
    folder = path.resolve().parent
    files: dict[Path, None] = {}
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        where = f"{path}: tensor {tensor.name!r}"
        entries = {entry.key: entry.value for entry in tensor.external_data}
        target = _target(entries.get("location", ""), folder, where)
        _check_extent(tensor, entries, target, where)
        files[target] = None
    return list(files)


def embed_small(model: ir.Model) -> None:
    """Read small external tensors, and those of subgraphs and attributes, into memory.

    The engine gets only large weights of the main graph apart from the graph; what stays in
    the graph must not point to files.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and (
                graph is not model.graph or tensor.nbytes <= SMALL
            ):
                value.const_value = _in_memory(tensor)
    for node in model.graph.all_nodes():
        for attribute in list(node.attributes.values()):
            if attribute.type == ir.AttributeType.TENSOR:
                held = attribute.as_tensor()
                if isinstance(held, ir.ExternalTensor):
                    node.attributes[attribute.name] = ir.AttrTensor(
                        attribute.name, _in_memory(held)
                    )


def _in_memory(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    return ir.external_data.convert_tensors_from_external([tensor])[0]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for body in attribute.graphs:
                yield from _tensors(body)


def _target(location: str, folder: Path, where: str) -> Path:
    try:
        target = (folder / location).resolve() if "\0" not in location else folder
        exists = target.is_file()
    except OSError:
        # A name that no file can have: too long, or a loop of links.
        target, exists = folder, False
    inside = target.is_relative_to(folder) and target != folder
    if Path(location).is_absolute() or not inside:
        raise OnnxFileError(
            f"its external data {location!r} lies outside the model's folder, which is refused",
            where=where,
            fix="save the model with its data in files beside it",
        )
    if not exists:
        raise OnnxFileError(
            f"its external data file {location!r} does not exist",
            where=where,
            fix=f"put {location!r} beside the .onnx file; the two belong together",
        )
    return target


def _check_extent(
    tensor: onnx.TensorProto, entries: dict[str, str], target: Path, where: str
) -> None:
    needed = math.ceil(math.prod(tensor.dims) * ir.DataType(tensor.data_type).itemsize)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", needed))
    except ValueError:
        offset, length = -1, -1
    if offset < 0 or length < needed or any(size < 0 for size in tensor.dims):
        raise OnnxFileError(
            f"its external data has offset {entries.get('offset')} and length "
            f"{entries.get('length')}, but the tensor needs {needed} bytes",
            where=where,
            fix="the file is damaged: export it again",
        )
    size = target.stat().st_size
    if offset + length > size:
        raise OnnxFileError(
            f"its external data file {target.name!r} is too short: it has {size} bytes, "
            f"and the tensor ends at byte {offset + length}",
            where=where,
            fix="copy the data file again; it is probably truncated",
        )
