"""One execution context of a plan with its stream and its memory: where runs happen.

A lane serves one optimisation profile. Runs are queued on its stream one behind the other, each on
memory of its own, so that the arrays of the next run travel while this one computes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from leptonc.runtime.cuda.driver import Cuda
from leptonc.runtime.cuda.errors import megabytes
from leptonc.runtime.cuda.memory import Block, Placement, array_bytes, place_arrays
from leptonc.runtime.engines.tensorrt.library import failure
from leptonc.runtime.engines.tensorrt.output_allocator import GrownOutput, attach_allocator
from leptonc.runtime.engines.tensorrt.tensors import EngineTensor
from leptonc.runtime.errors import DeviceMemoryError, EngineError, LeptonError
from leptonc.runtime.inputs import Array

Shape = tuple[int, ...]


class Lane:
    """A context, its stream, and the memory of its runs. Hold `lock` around every method."""

    def __init__(
        self, engine: Any, cuda: Cuda, context: Any, profile: int, tensors: Sequence[EngineTensor]
    ) -> None:
        """Set the context up for a profile.

        Args:
            engine: The TensorRT module.
            cuda: The GPU.
            context: A new execution context.
            profile: The number of its profile.
            tensors: All inputs and outputs.

        Raises:
            EngineError: TensorRT does not take the profile.
            DeviceMemoryError: There is no memory for it.
        """
        self.lock = threading.Lock()
        self.cuda = cuda
        self.tensors = tuple(tensors)
        self.stream = cuda.create_stream()
        self._engine = engine
        self._context = context
        self._idle: list[Block] = []
        self._abandoned: deque[tuple[int, Block]] = deque()
        self._grown: dict[str, GrownOutput] = {}
        if not context.set_optimization_profile_async(profile, self.stream):
            error = self._refused(f"profile {profile} cannot be set")
            cuda.destroy_stream(self.stream)
            raise error
        cuda.finish(self.stream)

    def set_shapes(
        self, shapes: Mapping[str, Shape], host_values: Mapping[str, Array]
    ) -> dict[str, Shape | None]:
        """Tell the context the shapes of a run; return those of the outputs.

        Args:
            shapes: Of every input.
            host_values: The inputs that the engine reads on the host, to compute shapes.

        Returns:
            By output, None where only the run itself will tell.

        Raises:
            EngineError: TensorRT does not take them.
        """
        for tensor in self.tensors:
            if not tensor.is_input:
                continue
            if not self._context.set_input_shape(tensor.name, tuple(shapes[tensor.name])):
                raise self._refused(
                    f"the shape {list(shapes[tensor.name])} of input {tensor.name!r} is refused"
                )
            if tensor.on_host:
                self._set_address(tensor.name, host_values[tensor.name].ctypes.data)
        missing = self._context.infer_shapes()
        if missing:
            raise self._refused(f"the shapes do not follow: {missing[0]!r} is not known")
        found: dict[str, Shape | None] = {}
        for tensor in self.tensors:
            if not tensor.is_input:
                shape = tuple(self._context.get_tensor_shape(tensor.name))
                found[tensor.name] = None if any(size < 0 for size in shape) else shape
        return found

    def place(self, shapes: Mapping[str, Shape | None]) -> Placement:
        """Place the arrays whose shapes are known in one block."""
        known = [
            (tensor.name, array_bytes(shape, tensor.dtype))
            for tensor in self.tensors
            if (shape := shapes[tensor.name]) is not None
        ]
        return place_arrays(known)

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """Queue a run on these addresses; outputs without one are allocated by the engine.

        Raises:
            EngineError: TensorRT fails.
            DeviceMemoryError: There is no memory for an output or for intermediate values.
        """
        for tensor in self.tensors:
            if tensor.name in addresses:
                self._set_address(tensor.name, addresses[tensor.name])
            else:
                grown = self._grown.get(tensor.name)
                if grown is None:
                    grown = attach_allocator(self._engine, self.cuda, tensor.name)
                    self._grown[tensor.name] = grown
                grown.shape, grown.error = None, None
                self._context.set_output_allocator(tensor.name, grown.allocator)
        done = self._context.execute_async_v3(self.stream)
        for grown in self._grown.values():
            if grown.error is not None:
                raise grown.error
        if not done:
            raise self._refused("the run cannot start")

    def grown(self, name: str) -> tuple[int, Shape]:
        """Return address and shape of an output that the engine allocated in the last run.

        Raises:
            EngineError: TensorRT did not say its shape.
        """
        output = self._grown[name]
        if output.shape is None:
            raise self._refused(f"the shape of output {name!r} was not given")
        return output.address, output.shape

    def capturable(self) -> bool:
        """Return whether TensorRT lets the next run be recorded."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(self.stream))

    def take_block(self, size: int) -> Block:
        """Return a block of at least `size` bytes that no run is using.

        Raises:
            DeviceMemoryError: There is no memory for one.
        """
        self._collect_abandoned()
        for block in self._idle:
            if block.size >= size:
                self._idle.remove(block)
                return block
        # A smaller one is of no use for these shapes, which are likely to come again.
        if self._idle:
            self._idle.pop().close()
        return Block(self.cuda, size)

    def give_block(self, block: Block) -> None:
        """Take a block back whose run is done."""
        if self._context is None:
            block.close()
        else:
            self._idle.append(block)

    def abandon(self, event: int, block: Block) -> None:
        """Take a block back whose run nobody waits for; it is used again after the event."""
        self._abandoned.append((event, block))

    def close(self) -> None:
        """Wait for all runs and free everything."""
        self.cuda.finish(self.stream)
        self._collect_abandoned()
        for block in self._idle:
            block.close()
        self._idle.clear()
        for grown in self._grown.values():
            grown.close(self.cuda)
        self._context = None
        self.cuda.destroy_stream(self.stream)

    def _collect_abandoned(self) -> None:
        # The collector may add to it at any moment: nothing but its two ends is touched.
        for _ in range(len(self._abandoned)):
            event, block = self._abandoned.popleft()
            if self.cuda.happened(event):
                self.cuda.destroy_event(event)
                self._idle.append(block)
            else:
                self._abandoned.append((event, block))

    def _set_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise self._refused(f"the address of {name!r} is refused")

    def _refused(self, what: str) -> LeptonError:
        text = failure(self._engine, "TensorRT gives no reason")
        return execution_error(what, text, self.cuda)


def execution_error(what: str, text: str, cuda: Cuda) -> LeptonError:
    """Return the error for a call of TensorRT that failed.

    Args:
        what: What was being done.
        text: What TensorRT said.
        cuda: The GPU, asked for its free memory when that is what is missing.
    """
    lowered = text.lower()
    if "out of memory" in lowered or "outofmemory" in lowered or "cudaerror 2:" in lowered:
        free, total = cuda.free_memory()
        return DeviceMemoryError(
            f"the GPU is out of memory: {what}; {megabytes(free)} of {megabytes(total)} are free",
            where=text,
            fix="use smaller batches or fewer sessions at once, or end other programs on the GPU",
        )
    return EngineError(
        f"TensorRT failed: {what}: {text}",
        fix="check that the sizes belong together; compile again to verify the artifact",
    )
