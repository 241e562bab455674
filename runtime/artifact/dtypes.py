"""The element types that an artifact may name, as NumPy spells them.

NumPy has no bfloat16 and no 8-bit floats. They may be weights, where only their bits travel;
they may not be inputs or outputs, because no NumPy array could carry them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np


@dataclass(frozen=True)
class ElementType:
    """One element type.

    Attributes:
        name: As NumPy spells it, or as ONNX does in lower case where NumPy has none.
        onnx: Its number in ONNX's `TensorProto.DataType`.
        storage: The NumPy type whose bits hold one element; object for text.
        native: Whether `storage` is the type itself, not only a carrier of its bits.
    """

    name: str
    onnx: int
    storage: np.dtype[np.generic]
    native: bool = True

    @property
    def itemsize(self) -> int | None:
        """Bytes of one element, None for text."""
        return None if self.name == "str" else self.storage.itemsize


def _element(name: str, onnx: int, storage: str | None = None) -> ElementType:
    return ElementType(name, onnx, np.dtype(storage or name), native=storage in (None, "object"))


ELEMENT_TYPES: Mapping[str, ElementType] = MappingProxyType(
    {
        element.name: element
        for element in (
            _element("float32", 1),
            _element("uint8", 2),
            _element("int8", 3),
            _element("uint16", 4),
            _element("int16", 5),
            _element("int32", 6),
            _element("int64", 7),
            _element("str", 8, "object"),
            _element("bool", 9),
            _element("float16", 10),
            _element("float64", 11),
            _element("uint32", 12),
            _element("uint64", 13),
            _element("complex64", 14),
            _element("complex128", 15),
            _element("bfloat16", 16, "uint16"),
            _element("float8_e4m3fn", 17, "uint8"),
            _element("float8_e4m3fnuz", 18, "uint8"),
            _element("float8_e5m2", 19, "uint8"),
            _element("float8_e5m2fnuz", 20, "uint8"),
        )
    }
)
