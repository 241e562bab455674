"""One run of a plan: arrays to the GPU, the kernels, arrays back, without waiting in between."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import numpy as np

from leptonc.runtime.cuda.memory import Block, Placement, array_bytes
from leptonc.runtime.engines.tensorrt.lane import Lane, Shape
from leptonc.runtime.engines.tensorrt.tensors import EngineTensor
from leptonc.runtime.inputs import Array, Arrays


class PendingRun:
    """A run that was started; made by `Session.run_async`.

    The inputs were copied: they may be overwritten at once. Let go of it to forget the run.
    """

    def __init__(
        self,
        lane: Lane,
        block: Block,
        pinned: Mapping[str, Array],
        ready: Arrays,
        order: tuple[str, ...],
    ) -> None:
        self._lane = lane
        self._block = block
        self._pinned = pinned
        self._ready = ready
        self._order = order
        self._event = lane.cuda.create_event()
        lane.cuda.record(self._event, lane.stream)
        self._answer: Arrays | None = None
        self._forget = weakref.finalize(self, lane.abandon, self._event, block)
        self._forget.atexit = False

    def done(self) -> bool:
        """Return whether `result` would return at once."""
        if self._answer is not None:
            return True
        self._lane.cuda.use()
        return self._lane.cuda.happened(self._event)

    def result(self) -> Arrays:
        """Wait for the run and return new arrays by output name.

        Raises:
            EngineError: The GPU failed.
        """
        if self._answer is None:
            self._lane.cuda.use()
            self._lane.cuda.wait(self._event)
            copies = {name: array.copy() for name, array in self._pinned.items()}
            found = {**copies, **self._ready}
            self._forget.detach()
            self._lane.cuda.destroy_event(self._event)
            with self._lane.lock:
                self._lane.give_block(self._block)
            self._pinned = {}
            self._answer = {name: found[name] for name in self._order}
        return self._answer


def start(lane: Lane, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> PendingRun:
    """Start a run on a lane.

    Args:
        lane: Of the profile that takes the inputs.
        inputs: Contiguous arrays by name.
        outputs: The names of the outputs, in the order in which they are returned.

    Raises:
        EngineError: TensorRT or the GPU fails.
        DeviceMemoryError: There is no memory for it.
    """
    with lane.lock:
        lane.cuda.use()
        shapes = lane.set_shapes({name: array.shape for name, array in inputs.items()}, inputs)
        known: dict[str, Shape | None] = {**shapes, **{n: a.shape for n, a in inputs.items()}}
        placement = lane.place(known)
        block = lane.take_block(placement.size)
        try:
            ready, pinned = _queue(lane, block, placement, inputs, known)
            kept = {name: pinned[name] for name in outputs if name in pinned}
            return PendingRun(lane, block, kept, ready, outputs)
        except BaseException:
            # Copies may be under way in it.
            lane.cuda.finish(lane.stream)
            lane.give_block(block)
            raise


def _queue(
    lane: Lane,
    block: Block,
    placement: Placement,
    inputs: Mapping[str, Array],
    shapes: Mapping[str, Shape | None],
) -> tuple[Arrays, dict[str, Array]]:
    """Queue copies and kernels; return the outputs that are ready, and all pinned arrays."""
    pinned = {
        tensor.name: block.array(placement.offsets[tensor.name], shape, tensor.dtype)
        for tensor in lane.tensors
        if (shape := shapes[tensor.name]) is not None
    }
    for name, array in inputs.items():
        np.copyto(pinned[name], array)
    copy_arrays(lane, block, placement, pinned, to_device=True)
    lane.enqueue(_addresses(lane, block, placement))
    copy_arrays(lane, block, placement, pinned, to_device=False)
    grown = [t for t in lane.tensors if not t.is_input and t.name not in pinned]
    return {tensor.name: _fetch(lane, tensor) for tensor in grown}, pinned


def _addresses(lane: Lane, block: Block, placement: Placement) -> dict[str, int]:
    return {
        tensor.name: (block.host if tensor.on_host else block.device)
        + placement.offsets[tensor.name]
        for tensor in lane.tensors
        if tensor.name in placement.offsets
    }


def copy_arrays(
    lane: Lane,
    block: Block,
    placement: Placement,
    pinned: Mapping[str, Array],
    *,
    to_device: bool,
) -> None:
    """Queue the copies of all inputs to the GPU, or of all outputs from it."""
    for tensor in lane.tensors:
        if tensor.is_input != to_device or tensor.on_host or tensor.name not in pinned:
            continue
        offset = placement.offsets[tensor.name]
        size = pinned[tensor.name].nbytes
        if to_device:
            lane.cuda.copy(
                block.device + offset, block.host + offset, size, "to_device", lane.stream
            )
        else:
            lane.cuda.copy(block.host + offset, block.device + offset, size, "to_host", lane.stream)


def _fetch(lane: Lane, tensor: EngineTensor) -> Array:
    """Copy an output that the engine sized; waits, since the next run uses the same memory."""
    address, shape = lane.grown(tensor.name)
    array: Array = np.empty(shape, tensor.dtype)
    size = array_bytes(shape, tensor.dtype)
    if size:
        lane.cuda.copy(array.ctypes.data, address, size, "to_host", lane.stream)
        lane.cuda.finish(lane.stream)
    return array
