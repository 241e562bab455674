"""Runs of a plan on arrays that stay where they are."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from leptonc.runtime.cuda.dlpack import DeviceArray
from leptonc.runtime.cuda.memory import Block, place_arrays
from leptonc.runtime.engines.tensorrt.lane import Lane
from leptonc.runtime.engines.tensorrt.run import copy_arrays
from leptonc.runtime.errors import InputError, LeptonError, UnsupportedError
from leptonc.runtime.inputs import Array

Bindable = Array | DeviceArray


class TensorRTBinding:
    """Arrays with their addresses on the GPU.

    Arrays of the host have a place on the GPU each, and are copied there and back by every run;
    arrays on the GPU are read and written where they lie.
    """

    def __init__(
        self,
        lane: Lane,
        inputs: Mapping[str, Bindable],
        outputs: Mapping[str, Bindable],
        *,
        capture: bool,
        lanes: list[Lane] | None = None,
    ) -> None:
        """Take the arrays.

        Args:
            lane: Of the profile that takes the inputs.
            inputs: By name.
            outputs: By name, all of them.
            capture: Record the second run and replay it from then on.
            lanes: The lane is in this list and serves this binding alone: it ends with it.

        Raises:
            InputError: An array for an output has not the shape that the run gives.
            UnsupportedError: The size of an output depends on values, or the engine wants an
                input on the host that lies on the GPU.
            EngineError: TensorRT does not take the shapes.
            DeviceMemoryError: There is no memory for it.
        """
        self._lane = lane
        self._arrays: dict[str, Bindable] = {**inputs, **outputs}
        self._held = {n: a for n, a in self._arrays.items() if isinstance(a, np.ndarray)}
        self._inputs = {name: array.shape for name, array in inputs.items()}
        with lane.lock:
            lane.cuda.use()
            shapes = lane.set_shapes(self._inputs, self._host_values())
            self._check_outputs(shapes)
            self._placement = place_arrays(
                (name, array.nbytes) for name, array in self._held.items()
            )
            self._block = lane.take_block(self._placement.size)
            self._pinned = {
                name: self._block.array(self._placement.offsets[name], array.shape, array.dtype)
                for name, array in self._held.items()
            }
        self._capture = capture
        self._runs = 0
        self._graphs: list[Any] = []
        self._release = weakref.finalize(self, _release, lane, self._block, self._graphs, lanes)
        self._release.atexit = False

    @property
    def stream(self) -> int:
        """The stream of its runs."""
        return self._lane.stream

    def run(self) -> None:
        """Copy in, compute, copy out, and wait.

        Raises:
            EngineError: TensorRT or the GPU fails.
        """
        lane = self._lane
        with lane.lock:
            lane.cuda.use()
            for tensor in lane.tensors:
                if tensor.is_input and tensor.name in self._pinned:
                    np.copyto(self._pinned[tensor.name], self._held[tensor.name])
            if self._graphs:
                lane.cuda.launch(self._graphs[0], lane.stream)
            else:
                self._enqueue_or_record()
            lane.cuda.finish(lane.stream)
            for tensor in lane.tensors:
                if not tensor.is_input and tensor.name in self._pinned:
                    np.copyto(self._held[tensor.name], self._pinned[tensor.name])

    def _enqueue_or_record(self) -> None:
        """Queue a run; the second one is recorded, when the engine has set itself up."""
        lane = self._lane
        self._runs += 1
        lane.set_shapes(self._inputs, self._host_values())
        if not self._capture or self._runs < 2 or not lane.capturable():
            self._enqueue()
            return
        lane.cuda.begin_capture(lane.stream)
        try:
            self._enqueue()
        except BaseException:
            lane.cuda.destroy_graph(lane.cuda.end_capture(lane.stream))
            raise
        self._graphs.append(lane.cuda.end_capture(lane.stream))
        lane.cuda.launch(self._graphs[0], lane.stream)

    def _enqueue(self) -> None:
        lane, block, placement = self._lane, self._block, self._placement
        copy_arrays(lane, block, placement, self._pinned, to_device=True)
        lane.enqueue(
            {tensor.name: self._address(tensor.name, tensor.on_host) for tensor in lane.tensors}
        )
        copy_arrays(lane, block, placement, self._pinned, to_device=False)

    def _address(self, name: str, on_host: bool) -> int:
        array = self._arrays[name]
        if isinstance(array, DeviceArray):
            return array.address
        start = self._block.host if on_host else self._block.device
        return start + self._placement.offsets[name]

    def _host_values(self) -> dict[str, Array]:
        values = {}
        for tensor in self._lane.tensors:
            if not tensor.on_host:
                continue
            array = self._arrays[tensor.name]
            if isinstance(array, DeviceArray):
                raise UnsupportedError(
                    f"the engine needs {tensor.name!r} on the host, to compute sizes from it",
                    where=tensor.name,
                    fix="bind a NumPy array for it",
                )
            values[tensor.name] = array
        return values

    def _check_outputs(self, shapes: Mapping[str, tuple[int, ...] | None]) -> None:
        for name, shape in shapes.items():
            if shape is None:
                raise UnsupportedError(
                    f"the size of output {name!r} depends on values: it cannot be bound",
                    where=name,
                    fix="call the session instead",
                )
            if self._arrays[name].shape != shape:
                raise InputError(
                    f"the array for output {name!r} has shape {list(self._arrays[name].shape)}; "
                    f"the run gives {list(shape)}",
                    where=name,
                    fix="bind an array of that shape",
                )


def _release(lane: Lane, block: Block, graphs: list[Any], lanes: list[Lane] | None) -> None:
    """Free what a binding had; called when it is let go, on whatever thread that happens."""
    # After an error from which CUDA does not recover there is nothing left to free.
    with suppress(LeptonError):
        lane.cuda.use()
        for graph in graphs:
            lane.cuda.destroy_graph(graph)
        lane.give_block(block)
        if lanes is not None and lane in lanes:
            lanes.remove(lane)
            lane.close()
