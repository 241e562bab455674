"""The few functions of CUDA that a loader needs; the only module that imports cuda-python.

Everything is a plain integer here: an address, a stream, a graph. No torch, no arrays.
"""

from __future__ import annotations

from typing import Any, Literal

from leptonc.runtime.cuda.errors import (
    INSUFFICIENT_DRIVER,
    INVALID_VALUE,
    NOT_READY,
    OUT_OF_MEMORY,
    call_error,
    driver_error,
    memory_error,
)
from leptonc.runtime.errors import EngineMissingError

Direction = Literal["to_device", "to_host", "on_device"]
_KINDS: dict[Direction, str] = {
    "to_device": "cudaMemcpyHostToDevice",
    "to_host": "cudaMemcpyDeviceToHost",
    "on_device": "cudaMemcpyDeviceToDevice",
}


def import_cuda() -> Any:
    """Return the module `cuda.bindings.runtime`.

    Raises:
        EngineMissingError: cuda-python is not installed, or cannot be imported.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        raise EngineMissingError(
            "cuda-bindings is not installed"
            if missing
            else f"cuda-bindings cannot be imported: {error}",
            fix="pip install 'leptonc[tensorrt]'",
        ) from error
    return runtime


class Cuda:
    """One GPU.

    Every method raises MachineError when the driver or the GPU is not usable, DeviceMemoryError
    when memory runs out, and EngineError for any other failure of CUDA.
    """

    def __init__(self, library: Any, device: int = 0) -> None:
        """Choose a GPU for this thread.

        Args:
            library: The module `cuda.bindings.runtime`.
            device: The number of the GPU.
        """
        self._library = library
        self.device = device
        self._kinds = {key: getattr(library.cudaMemcpyKind, name) for key, name in _KINDS.items()}
        self.use()

    def use(self) -> None:
        """Make this GPU the one of the calling thread."""
        self._call("cudaSetDevice", self.device)

    def capability(self) -> str:
        """Return the compute capability: "8.9"."""
        attributes = self._library.cudaDeviceAttr
        major = self._call(
            "cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMajor, self.device
        )
        minor = self._call(
            "cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMinor, self.device
        )
        return f"{major}.{minor}"

    def driver_version(self) -> int:
        """Return the newest CUDA that the driver supports, as 1000 * major + 10 * minor."""
        return int(self._call("cudaDriverGetVersion"))

    def free_memory(self) -> tuple[int, int]:
        """Return the bytes of the GPU's memory that are free, and all of them."""
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def allocate(self, size: int, purpose: str) -> int:
        """Return the address of `size` bytes (at least 1) on the GPU."""
        return self._allocate("cudaMalloc", size, purpose)

    def release(self, address: int) -> None:
        """Free what `allocate` gave."""
        self._call("cudaFree", address)

    def allocate_pinned(self, size: int, purpose: str) -> int:
        """Return the address of `size` bytes (at least 1) of the host that the GPU reads itself."""
        return self._allocate("cudaMallocHost", size, purpose)

    def release_pinned(self, address: int) -> None:
        """Free what `allocate_pinned` gave."""
        self._call("cudaFreeHost", address)

    def copy(self, target: int, source: int, size: int, way: Direction, stream: int) -> None:
        """Copy `size` bytes when the stream comes to it."""
        if size:
            self._call("cudaMemcpyAsync", target, source, size, self._kinds[way], stream)

    def create_stream(self) -> int:
        """Return a new stream, which does not wait for the default one."""
        flag = self._library.cudaStreamNonBlocking
        return int(self._call("cudaStreamCreateWithFlags", flag))

    def finish(self, stream: int) -> None:
        """Return when everything in the stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def finished(self, stream: int) -> bool:
        """Return whether everything in the stream is done."""
        code, *_ = self._library.cudaStreamQuery(stream)
        if int(code) == NOT_READY:
            return False
        self._check("cudaStreamQuery", code)
        return True

    def destroy_stream(self, stream: int) -> None:
        """Let go of a stream."""
        self._call("cudaStreamDestroy", stream)

    def create_event(self) -> int:
        """Return a new event without a time stamp."""
        flag = self._library.cudaEventDisableTiming
        return int(self._call("cudaEventCreateWithFlags", flag))

    def record(self, event: int, stream: int) -> None:
        """Set the event when the stream comes to it."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, event: int) -> None:
        """Return when the event is set."""
        self._call("cudaEventSynchronize", event)

    def happened(self, event: int) -> bool:
        """Return whether the event is set."""
        code, *_ = self._library.cudaEventQuery(event)
        if int(code) == NOT_READY:
            return False
        self._check("cudaEventQuery", code)
        return True

    def destroy_event(self, event: int) -> None:
        """Let go of an event."""
        self._call("cudaEventDestroy", event)

    def begin_capture(self, stream: int) -> None:
        """From here on, what this thread puts into the stream is recorded and not run."""
        mode = self._library.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> Any:
        """Return what was recorded, ready for `launch`."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: int) -> None:
        """Run what was recorded."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        """Let go of what was recorded."""
        self._call("cudaGraphExecDestroy", graph)

    def _allocate(self, function: str, size: int, purpose: str) -> int:
        code, address = getattr(self._library, function)(size)
        if int(code) == OUT_OF_MEMORY:
            # The failure stays as the "last error" until it is asked for.
            self._library.cudaGetLastError()
            free: int | None = None
            total: int | None = None
            if function == "cudaMalloc":
                free, total = self.free_memory()
            raise memory_error(size, free, total, purpose)
        self._check(function, code)
        return int(address)

    def _call(self, function: str, *arguments: Any) -> Any:
        code, *values = getattr(self._library, function)(*arguments)
        self._check(function, code)
        return values[0] if len(values) == 1 else tuple(values)

    def _check(self, function: str, code: Any) -> None:
        number = int(code)
        if number == 0:
            return
        library = self._library
        if number == INSUFFICIENT_DRIVER:
            _, driver = library.cudaDriverGetVersion()
            _, runtime = library.cudaRuntimeGetVersion()
            raise driver_error(int(driver), int(runtime))
        _, text = library.cudaGetErrorString(code)
        name = getattr(code, "name", str(number))
        said = text.decode() if isinstance(text, bytes) else str(text)
        if number == INVALID_VALUE and function == "cudaSetDevice":
            number = 101
        raise call_error(number, name, said, function)
