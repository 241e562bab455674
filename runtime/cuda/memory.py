"""Memory of one run: one block on the GPU, one pinned block of the host, and who lies where.

All arrays of a run share two allocations, since allocating on a GPU stops everything on it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from leptonc.runtime.cuda.driver import Cuda
from leptonc.runtime.inputs import Array

# What cudaMalloc aligns to, and the engine's fastest loads expect.
ALIGNMENT = 256


@dataclass(frozen=True)
class Placement:
    """Where arrays lie in a block.

    Attributes:
        offsets: From the start of the block, in bytes, by name; multiples of `ALIGNMENT`.
        size: Bytes of the block, at least 1.
    """

    offsets: Mapping[str, int]
    size: int


def place_arrays(sizes: Iterable[tuple[str, int]]) -> Placement:
    """Place arrays of these sizes in bytes one behind the other.

    An empty array has a place of its own, since engines want an address for it.
    """
    offsets: dict[str, int] = {}
    end = 0
    for name, size in sizes:
        offsets[name] = end
        end += max(-(-size // ALIGNMENT), 1) * ALIGNMENT
    return Placement(offsets, max(end, 1))


def array_bytes(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> int:
    """Return the bytes of an array; exact for any size."""
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count


class Block:
    """Equal amounts of memory on the GPU and, pinned, on the host.

    Attributes:
        size: Bytes of each.
        device: Address on the GPU.
        host: Address on the host.
    """

    def __init__(self, cuda: Cuda, size: int) -> None:
        """Allocate.

        Raises:
            DeviceMemoryError: The GPU or the host has not enough; nothing stays allocated.
        """
        self._cuda = cuda
        self.size = size
        self.device = cuda.allocate(size, "inputs and outputs")
        try:
            self.host = cuda.allocate_pinned(size, "inputs and outputs")
        except BaseException:
            cuda.release(self.device)
            raise

    def array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """Return the pinned bytes at `offset` as an array; it must not outlive the block."""
        count = array_bytes(shape, dtype)
        raw = (ctypes.c_ubyte * count).from_address(self.host + offset)
        array: Array = np.frombuffer(memoryview(raw), np.uint8).view(dtype).reshape(shape)
        return array

    def close(self) -> None:
        """Free both; nothing may be running on them."""
        self._cuda.release(self.device)
        self._cuda.release_pinned(self.host)
