"""Identifies tensors by their bytes, reading each as little as it takes, and never whole.

A digest is the SHA-256 of the little-endian bytes, as ONNX stores them. Tensors in files are
read in pieces; tensors in memory are hashed in place.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.errors import ModelError

# Enough to tell most different weights apart.
_HEAD = 256

# Where a lazy tensor keeps its digest, and a function that returns its first bytes; a tensor of
# a protobuf keeps both, since each look at its data copies all of it.
_DIGEST = "leptonc.sha256"
_HEAD_BYTES = "leptonc.head_bytes"
HEAD_OF = "leptonc.head"
# Of what a tensor is computed, for one that is computed when it is read: the `id` of each source.
MADE_FROM = "leptonc.made_from"
_COSTLY = (ir.LazyTensor, ir.serde.TensorProtoTensor)

_PIECE = 1 << 20


class HashSink:
    """A file that keeps a digest of what is written to it, and nothing else."""

    def __init__(self) -> None:
        """Start with nothing written."""
        self._digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        """Take in some bytes."""
        self._digest.update(data)
        return len(data)

    def digest(self) -> bytes:
        """Return the SHA-256 of all that was written."""
        return self._digest.digest()


def place(tensor: ir.TensorProtocol) -> tuple[str, int, int] | None:
    """Return where a tensor lies on disk: tensors in one place are equal without a look."""
    if not isinstance(tensor, ir.ExternalTensor):
        return None
    return os.fspath(tensor.path), tensor.offset or 0, tensor.length or tensor.nbytes


def head(tensor: ir.TensorProtocol) -> bytes | None:
    """Return the first bytes of a tensor, or None where they cost as much as all."""
    with _data_of(tensor), unmapping([tensor]):
        if isinstance(tensor, ir.LazyTensor):
            first: Callable[[int], bytes] | None = tensor.meta.get(HEAD_OF)
            return None if first is None else first(_HEAD)
        if not isinstance(tensor, ir.serde.TensorProtoTensor):
            return _first_in_place(tensor)
        if _HEAD_BYTES not in tensor.meta:
            tensor.meta[_HEAD_BYTES] = _first_in_place(tensor)
        known: bytes | None = tensor.meta[_HEAD_BYTES]
        return known


def made_from(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """Return what tells a computed tensor from those that are computed from other tensors.

    Empty for one that is stored, or whose sources are not known.
    """
    if not isinstance(tensor, ir.LazyTensor):
        return ()
    sources: tuple[int, ...] = tensor.meta.get(MADE_FROM, ())
    return sources


def digest(tensor: ir.TensorProtocol) -> bytes:
    """Return the SHA-256 of the bytes of a tensor.

    Raises:
        ModelError: Its file is missing, too short, or not where it may be.
    """
    if isinstance(tensor, _COSTLY) and _DIGEST in tensor.meta:
        return bytes(tensor.meta[_DIGEST])
    sink = HashSink()
    with _data_of(tensor):
        if tensor.dtype == ir.DataType.STRING:
            for text in tensor.numpy().reshape(-1).tolist():
                sink.write(len(text).to_bytes(8, "little") + bytes(text))
        elif isinstance(tensor, ir.ExternalTensor):
            tensor.tofile(sink)
        else:
            array = _in_place(tensor)
            sink.write(tensor.tobytes() if array is None else array.data)
    if isinstance(tensor, _COSTLY):
        tensor.meta[_DIGEST] = sink.digest()
    return sink.digest()


def digest_transposed(tensor: ir.TensorProtocol) -> bytes:
    """Return the digest that the transpose of a matrix has.

    Args:
        tensor: `[R, C]`; read in blocks of columns.
    """
    with _data_of(tensor), unmapping([tensor]):
        return _digest_columns(tensor.numpy())


def _digest_columns(matrix: np.ndarray[Any, Any]) -> bytes:
    sink = HashSink()
    columns = max(1, _PIECE // max(1, matrix.shape[0] * matrix.itemsize))
    for start in range(0, matrix.shape[1], columns):
        block = np.ascontiguousarray(matrix[:, start : start + columns].T)
        sink.write(block.view(np.uint8).reshape(-1).data)
    return sink.digest()


def _first_in_place(tensor: ir.TensorProtocol) -> bytes | None:
    array = _in_place(tensor)
    return None if array is None else array[:_HEAD].tobytes()


def _in_place(tensor: ir.TensorProtocol) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    """Return the bytes of a tensor without a copy, if it has them in one piece."""
    if isinstance(tensor, ir.LazyTensor) or tensor.dtype == ir.DataType.STRING:
        return None
    if tensor.dtype.bitwidth < 8 or tensor.size == 0 or sys.byteorder != "little":
        return None
    array = tensor.numpy()
    return array.reshape(-1).view(np.uint8) if array.flags.c_contiguous else None


@contextmanager
def unmapping(tensors: Iterable[ir.TensorProtocol]) -> Iterator[None]:
    """Unmap again the files that are mapped inside the block.

    Mapped pages that were read count as memory of the process, and a model is mapped once for
    each tensor that is looked at.
    """
    fresh = [
        tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor) and tensor.raw is None
    ]
    try:
        yield
    finally:
        for tensor in fresh:
            # A view that is still in use keeps its mapping.
            with suppress(BufferError):
                tensor.release()


@contextmanager
def _data_of(tensor: ir.TensorProtocol) -> Iterator[None]:
    """Say which tensor it was whose file cannot be read."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the data of tensor {tensor.name!r} cannot be read: {error}",
            where=str(tensor.path) if isinstance(tensor, ir.ExternalTensor) else None,
            fix="put the external data file beside the model, whole, or export the model again",
        ) from error
