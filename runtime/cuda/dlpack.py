"""Takes arrays that lie on a GPU, from torch, CuPy or whatever speaks DLPack, without a copy.

The structures are those of DLPack 0.x (`DLManagedTensor`, dmlc.github.io/dlpack/latest): every
producer gives them when it is not asked for a newer version.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from leptonc.runtime.errors import InputError

CPU = 1
CUDA = 2
_CAPSULE = b"dltensor"
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 6: "bool"}


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("number", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class DeviceArray:
    """An array on a GPU that belongs to someone else.

    Attributes:
        address: Of its first element.
        shape: Sizes.
        dtype: As NumPy spells it ("bfloat16" for the type that NumPy lacks).
        device: The number of the GPU.
        owner: Keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    device: int
    owner: object

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        size = 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize
        return int(np.prod(self.shape, dtype=np.int64)) * size


def device_array(name: str, value: Any, stream: int) -> DeviceArray:
    """Take the array that `value` exports.

    Args:
        name: For messages.
        value: Has `__dlpack__` and `__dlpack_device__`.
        stream: The stream that will use it; work on it in the producer's stream comes first.

    Raises:
        InputError: It cannot be exported, is not contiguous, or has a type that NumPy lacks.
    """
    try:
        capsule = value.__dlpack__(stream=stream)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the array for {name!r} cannot be shared: {error}",
            where=name,
            fix="give an array without gradient, e.g. tensor.detach()",
        ) from error
    return read_capsule(name, capsule, value)


def read_capsule(name: str, capsule: object, owner: object) -> DeviceArray:
    """Read the structure in a DLPack capsule, which stays alive with the result.

    Args:
        name: For messages.
        capsule: As `__dlpack__` gives it; it is not marked as used, so that it frees itself.
        owner: The array it came from.

    Raises:
        InputError: It is not contiguous, or has a type that NumPy lacks.
    """
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    address = pointer(ctypes.py_object(capsule), _CAPSULE)
    tensor = ctypes.cast(address, ctypes.POINTER(_Tensor)).contents
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim)) if tensor.strides else None
    if not _contiguous(shape, strides):
        raise InputError(
            f"the array for {name!r} is not contiguous: shape {list(shape)}, "
            f"strides {list(strides or ())} in elements",
            where=name,
            fix="give tensor.contiguous() (torch) or cupy.ascontiguousarray(array)",
        )
    return DeviceArray(
        (tensor.data or 0) + tensor.byte_offset,
        shape,
        _dtype(name, tensor.dtype),
        tensor.device.number,
        (capsule, owner),
    )


def _dtype(name: str, dtype: _DataType) -> str:
    kind = _KINDS.get(dtype.code)
    if kind is None or dtype.lanes != 1:
        raise InputError(
            f"the array for {name!r} has a type that is not taken "
            f"(DLPack code {dtype.code}, {dtype.bits} bits, {dtype.lanes} lanes)",
            where=name,
            fix="convert it to the type of the model's signature",
        )
    return "bool" if kind == "bool" else f"{kind}{dtype.bits}"


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool:
    if strides is None or 0 in shape:
        return True
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
