"""Test doubles of CUDA's runtime and of TensorRT, for machines without a GPU.

`FakeCudart` has the functions that `leptonc.runtime.cuda.driver` calls, over ordinary memory: "the GPU" is
a table of buffers, so that an address that was not allocated there is found. Work on a stream runs
when the stream is waited for, never before, so that a missing wait gives wrong numbers.
`FakeTensorRT` runs Python functions of arrays as engines. Neither proves anything about NVIDIA's
libraries; both prove what our code does with their answers.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable, Mapping
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from leptonc.runtime.cuda.driver import import_cuda

Function = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
SUCCESS, INVALID, NO_MEMORY, NOT_READY = 0, 1, 2, 600


class MemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class FakeCudart:
    """The CUDA runtime of a GPU with a little memory."""

    cudaMemcpyKind = MemcpyKind
    cudaStreamNonBlocking = 1
    cudaEventDisableTiming = 2
    cudaDeviceAttr = SimpleNamespace(
        cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, capability: str = "8.9", memory: int = 1 << 24) -> None:
        self.capability = capability
        self.total = memory
        self.fail: dict[str, int] = {}
        self.calls: list[str] = []
        self.device: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.events: dict[int, bool] = {}
        self.recording: dict[int, list[Callable[[], None]]] = {}
        self.lock = threading.RLock()
        self._numbers = itertools.count(1)

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if not name.startswith("cuda") or not callable(value) or isinstance(value, type):
            return value
        fail = object.__getattribute__(self, "fail")

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in fail:
                return (fail[name], None, None)
            # A stream does one thing at a time, whichever threads wait for it.
            with self.lock:
                return value(*arguments)

        return call

    @property
    def used(self) -> int:
        return sum(ctypes.sizeof(buffer) for buffer in self.device.values())

    def put(self, stream: int, work: Callable[[], None]) -> None:
        (self.recording if stream in self.recording else self.streams)[stream].append(work)

    def cudaSetDevice(self, device: int) -> Any:
        return (SUCCESS if device == 0 else INVALID,)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> Any:
        return SUCCESS, int(self.capability.split(".")[attribute - 75])

    def cudaDriverGetVersion(self) -> Any:
        return SUCCESS, 13000

    def cudaRuntimeGetVersion(self) -> Any:
        return SUCCESS, 13050

    def cudaGetErrorString(self, code: int) -> Any:
        return SUCCESS, b"an illegal memory access was encountered"

    def cudaGetLastError(self) -> Any:
        return (SUCCESS,)

    def cudaMemGetInfo(self) -> Any:
        return SUCCESS, self.total - self.used, self.total

    def cudaMalloc(self, size: int) -> Any:
        if size > self.total - self.used:
            return NO_MEMORY, None
        buffer = ctypes.create_string_buffer(size)
        self.device[ctypes.addressof(buffer)] = buffer
        return SUCCESS, ctypes.addressof(buffer)

    def cudaFree(self, address: int) -> Any:
        del self.device[address]
        return (SUCCESS,)

    def cudaMallocHost(self, size: int) -> Any:
        buffer = ctypes.create_string_buffer(size)
        self.pinned[ctypes.addressof(buffer)] = buffer
        return SUCCESS, ctypes.addressof(buffer)

    def cudaFreeHost(self, address: int) -> Any:
        del self.pinned[address]
        return (SUCCESS,)

    def on_device(self, address: int, size: int) -> bool:
        return any(
            start <= address and address + size <= start + ctypes.sizeof(buffer)
            for start, buffer in self.device.items()
        )

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> Any:
        places = {1: (target, None), 2: (None, source), 3: (target, source)}[kind]
        if not all(place is None or self.on_device(place, size) for place in places):
            return (700,)
        self.put(stream, lambda: ctypes.memmove(target, source, size) and None)
        return (SUCCESS,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        stream = next(self._numbers)
        self.streams[stream] = []
        return SUCCESS, stream

    def cudaStreamSynchronize(self, stream: int) -> Any:
        while self.streams[stream]:
            self.streams[stream].pop(0)()
        return (SUCCESS,)

    def cudaStreamQuery(self, stream: int) -> Any:
        return (NOT_READY if self.streams[stream] else SUCCESS,)

    def cudaStreamDestroy(self, stream: int) -> Any:
        del self.streams[stream]
        return (SUCCESS,)

    def cudaEventCreateWithFlags(self, flags: int) -> Any:
        event = next(self._numbers)
        self.events[event] = False
        return SUCCESS, event

    def cudaEventRecord(self, event: int, stream: int) -> Any:
        self.put(stream, lambda: self.events.__setitem__(event, True))
        return (SUCCESS,)

    def cudaEventQuery(self, event: int) -> Any:
        return (SUCCESS if self.events[event] else NOT_READY,)

    def cudaEventSynchronize(self, event: int) -> Any:
        for queue in self.streams.values():
            while queue and not self.events[event]:
                queue.pop(0)()
        return (SUCCESS,)

    def cudaEventDestroy(self, event: int) -> Any:
        del self.events[event]
        return (SUCCESS,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> Any:
        self.recording[stream] = []
        return (SUCCESS,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        return SUCCESS, self.recording.pop(stream)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        return SUCCESS, tuple(graph)

    def cudaGraphDestroy(self, graph: Any) -> Any:
        return (SUCCESS,)

    def cudaGraphExecDestroy(self, graph: Any) -> Any:
        return (SUCCESS,)

    def cudaGraphLaunch(self, graph: Any, stream: int) -> Any:
        self.streams[stream].extend(graph)
        return (SUCCESS,)


class Mode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class Location(IntEnum):
    DEVICE = 0
    HOST = 1


class RuntimeCache:
    """Grows by a kernel for each context that is made with it."""

    def __init__(self) -> None:
        self.kernels = b""

    def serialize(self) -> bytes:
        return b"kernels:" + self.kernels

    def deserialize(self, data: bytes) -> bool:
        if not data.startswith(b"kernels:"):
            return False
        self.kernels = data[8:]
        return True


class FakeEngine:
    """A plan: inputs, outputs (None in a shape for a size that values decide) and a function."""

    def __init__(
        self,
        cudart: FakeCudart,
        inputs: Mapping[str, str],
        outputs: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], tuple[int, ...]]]],
        function: Function,
        *,
        profiles: int = 1,
        host_inputs: tuple[str, ...] = (),
        scratch: int = 0,
    ) -> None:
        self.cudart = cudart
        self.inputs, self.outputs, self.function = inputs, outputs, function
        self.num_optimization_profiles = profiles
        self.host_inputs = host_inputs
        self.scratch = scratch
        self.contexts: list[FakeContext] = []
        self.names = [*inputs, *outputs]
        self.num_io_tensors = len(self.names)
        self.no_context = False
        self.config: Any = None

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name in self.inputs else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        dtype = self.inputs[name] if name in self.inputs else self.outputs[name][0]
        names = {"float32": "FLOAT", "int64": "INT64", "bool": "BOOL", "float16": "HALF"}
        return SimpleNamespace(name=names.get(dtype, dtype))

    def get_tensor_location(self, name: str) -> Location:
        return Location.HOST if name in self.host_inputs else Location.DEVICE

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return self.scratch

    def create_runtime_config(self) -> Any:
        self.config = RuntimeConfig()
        return self.config

    def create_execution_context(self, settings: Any) -> Any:
        free = self.cudart.total - self.cudart.used
        if self.no_context or self.scratch > free:
            return None
        if isinstance(settings, RuntimeConfig) and settings.cache is not None:
            settings.cache.kernels += b"k"
        context = FakeContext(self)
        self.contexts.append(context)
        return context


class RuntimeConfig:
    def __init__(self) -> None:
        self.cache: RuntimeCache | None = None
        self.cuda_graph_strategy: Any = None
        self.strategy: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class FakeContext:
    """Runs the engine's function on whatever lies at the addresses when the stream gets there."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}
        self.runs = 0
        self.refuse = ""

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return self.refuse != "profile"

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return self.refuse != "shape"

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        values = {
            host: self._read(self.addresses[host], self.shapes[host], "int64")
            for host in self.engine.host_inputs
        }
        return self.engine.outputs[name][1]({**self.shapes, **values})

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self.allocators[name] = allocator
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return not self.allocators

    def execute_async_v3(self, stream: int) -> bool:
        if self.refuse == "run":
            return False
        self.runs += 1
        cudart = self.engine.cudart
        shapes, addresses = dict(self.shapes), dict(self.addresses)
        if self.allocators:
            # As TensorRT does: the shape is only known when what comes before is done.
            cudart.cudaStreamSynchronize(stream)
            outputs = self._compute(shapes, addresses)
            for name, allocator in self.allocators.items():
                array = outputs[name]
                address = allocator.reallocate_output_async(name, 0, array.nbytes, 256, stream)
                if not address:
                    return False
                allocator.notify_shape(name, array.shape)
                ctypes.memmove(address, array.ctypes.data, array.nbytes)
            return True
        cudart.put(stream, lambda: self._write(self._compute(shapes, addresses), addresses))
        return True

    def _compute(self, shapes: Any, addresses: Any) -> Mapping[str, np.ndarray]:
        inputs = {}
        for name, dtype in self.engine.inputs.items():
            size = int(np.prod(shapes[name])) * np.dtype(dtype).itemsize
            host = name in self.engine.host_inputs
            assert host or size == 0 or self.engine.cudart.on_device(addresses[name], size), name
            inputs[name] = self._read(addresses[name], shapes[name], dtype)
        outputs = self.engine.function(inputs)
        return {
            name: np.ascontiguousarray(outputs[name], dtype)
            for name, (dtype, _) in self.engine.outputs.items()
        }

    def _write(self, outputs: Mapping[str, np.ndarray], addresses: Mapping[str, int]) -> None:
        for name, array in outputs.items():
            assert array.nbytes == 0 or self.engine.cudart.on_device(addresses[name], array.nbytes)
            ctypes.memmove(addresses[name], array.ctypes.data, array.nbytes)

    @staticmethod
    def _read(address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = (ctypes.c_ubyte * count).from_address(address)
        return np.frombuffer(raw, np.uint8).view(dtype).reshape(shape).copy()


class _Object:
    """TensorRT's classes want their constructor called by those that extend them."""

    def __init__(self) -> None:
        self.constructed = True


class FakeTensorRT:
    """The module: what our code reads from it besides the engine."""

    __version__ = "1.7.1.116"
    TensorIOMode = Mode
    TensorLocation = Location
    CudaGraphStrategy = SimpleNamespace(DISABLED=0, WHOLE_GRAPH_CAPTURE=1)
    ExecutionContextAllocationStrategy = SimpleNamespace(STATIC=0, ON_PROFILE_CHANGE=1)
    IOutputAllocator = _Object

    class ILogger(_Object):
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.plans: list[bytes] = []

    def Runtime(self, log: Any) -> Any:
        def deserialize(plan: bytes) -> FakeEngine:
            self.plans.append(plan)
            return self.engine

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


def has_driver() -> bool:
    code, version = import_cuda().cudaDriverGetVersion()
    return int(code) == 0 and version > 0


without_driver = pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
