"""Memory for outputs whose size only the values of the inputs decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from leptonc.runtime.cuda.driver import Cuda
from leptonc.runtime.errors import LeptonError


@dataclass
class GrownOutput:
    """An output that the engine sized while it ran.

    Attributes:
        address: On the GPU; 0 before the first run.
        capacity: Bytes there.
        shape: Of the last run, None before the engine has said it.
        error: Why memory could not be had, if so.
    """

    address: int = 0
    capacity: int = 0
    shape: tuple[int, ...] | None = None
    error: LeptonError | None = None
    allocator: Any = field(default=None, repr=False)

    def reserve(self, cuda: Cuda, size: int, name: str) -> int:
        """Return an address with room for `size` bytes, or 0 when there is no memory.

        The engine is underneath and takes no exception: it sees the 0, the caller `error`.
        """
        if size <= self.capacity and self.address:
            return self.address
        try:
            if self.address:
                cuda.release(self.address)
                self.address, self.capacity = 0, 0
            self.address = cuda.allocate(max(size, 1), f"the output {name!r}")
        except LeptonError as error:
            self.error = error
            return 0
        self.capacity = max(size, 1)
        return self.address

    def close(self, cuda: Cuda) -> None:
        """Free the memory; nothing may be running on it."""
        if self.address:
            cuda.release(self.address)
        self.address, self.capacity = 0, 0


def attach_allocator(engine: Any, cuda: Cuda, name: str) -> GrownOutput:
    """Return an output with an allocator of TensorRT's kind."""
    output = GrownOutput()
    output.allocator = _allocator_class(engine)(output, cuda, name)
    return output


def _allocator_class(engine: Any) -> Callable[[GrownOutput, Cuda, str], Any]:
    class Allocator(engine.IOutputAllocator):  # type: ignore[misc]  # no types in the library
        def __init__(self, output: GrownOutput, cuda: Cuda, name: str) -> None:
            engine.IOutputAllocator.__init__(self)
            self._output, self._cuda, self._name = output, cuda, name

        def reallocate_output(self, tensor: str, memory: int, size: int, alignment: int) -> int:
            del tensor, memory, alignment
            return self._output.reserve(self._cuda, size, self._name)

        def reallocate_output_async(
            self, tensor: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            del stream
            return self.reallocate_output(tensor, memory, size, alignment)

        def notify_shape(self, tensor: str, shape: Any) -> None:
            del tensor
            self._output.shape = tuple(shape)

    return Allocator
