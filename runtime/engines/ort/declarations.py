"""Declares weights to an ONNX engine in a few bytes of protobuf, without the onnx package.

An artifact's graph section has no large weights in it; the manifest says where they lie. The
engine still wants each one declared in the graph. Two protobuf messages of one type, written
one after the other, are their merge: appending `ModelProto{graph{initializer: ...}}` to the
stored bytes adds the declarations. Field numbers follow onnx.proto:

    ModelProto.graph = 7, GraphProto.initializer = 5,
    TensorProto: dims = 1, data_type = 2, name = 8, external_data = 13, data_location = 14
    StringStringEntryProto: key = 1, value = 2
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.artifact.manifest import Weight

_EXTERNAL = 1


@dataclass(frozen=True)
class Declaration:
    """An initialiser whose bytes lie in a file.

    Attributes:
        name: In the graph.
        dtype: A key of `ELEMENT_TYPES`.
        shape: Sizes.
        location: The name of the file.
        offset: Where the bytes start in it.
        length: How many they are.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    location: str
    offset: int
    length: int


def declaration(weight: Weight, location: str, start: int) -> Declaration:
    """Return the declaration of a weight in a file where its section starts at `start`."""
    offset = start + weight.offset
    return Declaration(weight.name, weight.dtype, weight.shape, location, offset, weight.length)


def declare_weights(weights: Iterable[Declaration]) -> bytes:
    """Return bytes to append to a `ModelProto` so that it declares `weights`."""
    tensors = b"".join(_field(5, _tensor(weight)) for weight in weights)
    return _field(7, tensors) if tensors else b""


def _tensor(weight: Declaration) -> bytes:
    return b"".join(
        (
            *(_number(1, size) for size in weight.shape),
            _number(2, ELEMENT_TYPES[weight.dtype].onnx),
            _field(8, weight.name.encode()),
            _entry("location", weight.location),
            _entry("offset", str(weight.offset)),
            _entry("length", str(weight.length)),
            _number(14, _EXTERNAL),
        )
    )


def _entry(key: str, value: str) -> bytes:
    return _field(13, _field(1, key.encode()) + _field(2, value.encode()))


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
