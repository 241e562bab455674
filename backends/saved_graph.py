"""A graph as a file with external weights, for engines that read one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from leptonc.backends.base import INLINE_BYTES


@contextmanager
def saved(model: ir.Model, folder: Path) -> Iterator[Path]:
    """Write `model` with external weights; the files are gone afterwards.

    Args:
        model: Its weights become those in the file.
        folder: Where to write; weights up to `INLINE_BYTES` stay in the graph.
    """
    path, data = folder / "source.onnx", folder / "source.data"
    values = [
        value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
        and value.const_value.dtype != ir.DataType.STRING
        and value.const_value.nbytes > INLINE_BYTES
    ]
    tensors = [value.const_value for value in values if value.const_value is not None]
    written = ir.external_data.convert_tensors_to_external(tensors, folder, data.name)
    for value, tensor in zip(values, written, strict=True):
        value.const_value = tensor
    try:
        ir.save(model, path)
        yield path
    finally:
        path.unlink(missing_ok=True)
        data.unlink(missing_ok=True)
