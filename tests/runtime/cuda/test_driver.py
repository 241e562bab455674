"""CUDA's errors in our words; and its runtime's real functions, on a machine without a driver."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

import pytest
from doubles import FakeCudart, without_driver

from leptonc.runtime.cuda.driver import Cuda, import_cuda
from leptonc.runtime.cuda.errors import call_error, driver_error, megabytes, memory_error
from leptonc.runtime.errors import (
    DeviceMemoryError,
    EngineError,
    EngineMissingError,
    MachineError,
)


@without_driver
def test_a_machine_without_a_driver_is_told_so_by_cuda_itself() -> None:
    with pytest.raises(MachineError, match="no NVIDIA driver") as caught:
        Cuda(import_cuda())
    assert 'device="auto"' in str(caught.value)
    assert caught.value.exit_code == 5


CALLS: list[tuple[str, Callable[[Cuda], object]]] = [
    ("use", lambda cuda: cuda.use()),
    ("capability", lambda cuda: cuda.capability()),
    ("free_memory", lambda cuda: cuda.free_memory()),
    ("allocate", lambda cuda: cuda.allocate(64, "a test")),
    ("allocate_pinned", lambda cuda: cuda.allocate_pinned(64, "a test")),
    ("release", lambda cuda: cuda.release(4096)),
    ("release_pinned", lambda cuda: cuda.release_pinned(4096)),
    ("copy", lambda cuda: cuda.copy(4096, 8192, 16, "to_device", 0)),
    ("create_stream", lambda cuda: cuda.create_stream()),
    ("finish", lambda cuda: cuda.finish(0)),
    ("finished", lambda cuda: cuda.finished(0)),
    ("create_event", lambda cuda: cuda.create_event()),
    ("begin_capture", lambda cuda: cuda.begin_capture(0)),
]


@without_driver
@pytest.mark.parametrize(("name", "call"), CALLS, ids=[name for name, _ in CALLS])
def test_the_real_functions_take_our_arguments(
    name: str, call: Callable[[Cuda], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong argument would be a TypeError; without a driver the right answer is error 35."""
    with monkeypatch.context() as patched:
        patched.setattr(Cuda, "use", lambda self: None)
        cuda = Cuda(import_cuda())
    with pytest.raises(MachineError, match="no NVIDIA driver"):
        call(cuda)


KINDS = {"cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost", "cudaMemcpyDeviceToDevice"}


def used_functions() -> set[str]:
    """Return the names of CUDA that our module has as text, which no type checker follows."""
    words = inspect.getsource(sys.modules[Cuda.__module__]).split('"')
    return {word for word in words if word.startswith("cuda") and word.isidentifier()} - KINDS


def test_every_function_that_is_called_exists_in_the_real_library() -> None:
    library = import_cuda()
    assert len(used_functions()) > 20
    assert [name for name in used_functions() if not hasattr(library, name)] == []
    assert [name for name in KINDS if not hasattr(library.cudaMemcpyKind, name)] == []


def test_cuda_python_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(EngineMissingError, match="cuda-bindings") as caught:
        import_cuda()
    assert "leptonc[tensorrt]" in str(caught.value)


def test_an_old_driver_names_both_versions() -> None:
    text = str(driver_error(12040, 13050))
    assert "too old: it supports CUDA 12.4; CUDA 13.5 is installed" in text
    assert "cuda-bindings for CUDA 12" in text


def test_memory_that_runs_out_names_what_was_asked_and_what_is_free() -> None:
    cuda = Cuda(FakeCudart(memory=4_000_000))
    kept = cuda.allocate(1_000_000, "weights")
    with pytest.raises(DeviceMemoryError) as caught:
        cuda.allocate(3_500_000, "inputs and outputs")
    assert "3.5 MB were asked for inputs and outputs; 3.0 MB of 4.0 MB are free" in str(
        caught.value
    )
    cuda.release(kept)
    cuda.allocate(3_500_000, "inputs and outputs")
    assert "pinned" in memory_error(10, None, None, "a test").what
    assert (megabytes(999_999), megabytes(1_000_000)) == ("1000.0 kB", "1.0 MB")


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (100, MachineError, "finds no GPU"),
        (46, MachineError, "busy"),
        (803, MachineError, "different versions"),
        (700, EngineError, "the GPU failed: an illegal memory access"),
    ],
)
def test_errors_of_cuda_become_ours(code: int, kind: type[Exception], words: str) -> None:
    library = FakeCudart()
    cuda = Cuda(library)
    library.fail["cudaStreamSynchronize"] = code
    with pytest.raises(kind, match=words) as caught:
        cuda.finish(1)
    assert "cudaStreamSynchronize" in str(caught.value)
    assert str(code) in str(caught.value)


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(MachineError, match="no GPU of that number"):
        Cuda(FakeCudart(), device=3)


def test_call_error_keeps_the_library_s_words() -> None:
    assert (
        "unspecified launch failure"
        in call_error(
            719, "cudaErrorLaunchFailure", "unspecified launch failure", "cudaEventSynchronize"
        ).what
    )
    assert isinstance(call_error(209, "x", "y", "z"), MachineError)


def test_a_test_double_answers_for_every_function_we_use() -> None:
    """What the double lacks, a test would not notice to be missing from our code."""
    assert [name for name in used_functions() if not hasattr(FakeCudart, name)] == []
