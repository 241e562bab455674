"""Arrays of other libraries: their real capsules, read here, and the checks before a bound run.

NumPy and torch write the same structures for arrays of the host as for arrays on a GPU; that is
what `read_capsule` is held against. An array that says it lies on a GPU is a test double.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonc.runtime.artifact.signature import Dim, Signature, TensorSpec
from leptonc.runtime.cuda.binding import DeviceBinding, on_device
from leptonc.runtime.cuda.dlpack import CUDA, DeviceArray, read_capsule
from leptonc.runtime.errors import InputError

DTYPES = ["float32", "float16", "float64", "int8", "int32", "int64", "uint8", "bool"]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4), st.booleans())
def test_a_capsule_is_read_as_it_was_written(
    dtype: str, shape: list[int], from_torch: bool
) -> None:
    array: Any = np.zeros(shape, dtype)
    if from_torch:
        array = torch.zeros(shape, dtype=getattr(torch, dtype))
    found = read_capsule("x", array.__dlpack__(), array)
    address = array.data_ptr() if from_torch else array.ctypes.data
    assert (found.shape, found.dtype, found.device) == (tuple(shape), dtype, 0)
    if 0 not in shape:
        assert found.address == address
    assert found.nbytes == (array.nbytes if not from_torch else array.numel() * array.itemsize)


def test_a_view_keeps_its_offset_and_its_owner_alive() -> None:
    whole = torch.arange(12, dtype=torch.float32)
    found = read_capsule("x", whole[4:8].__dlpack__(), None)
    assert found.address == whole.data_ptr() + 16
    bfloat = torch.zeros(3, dtype=torch.bfloat16)
    assert read_capsule("x", bfloat.__dlpack__(), bfloat).nbytes == 6
    del whole
    gc.collect()
    import ctypes

    assert list((ctypes.c_float * 4).from_address(found.address)) == [4, 5, 6, 7]


@pytest.mark.parametrize("array", [torch.zeros(4, 3).T, torch.zeros(4, 6)[:, ::2]])
def test_an_array_that_is_not_contiguous_is_refused(array: torch.Tensor) -> None:
    with pytest.raises(InputError, match="not contiguous") as caught:
        read_capsule("x", array.__dlpack__(), array)
    assert "contiguous()" in str(caught.value)


def test_axes_of_size_one_may_have_any_stride() -> None:
    array = torch.zeros(1, 4, 6)[:, :, :1]
    assert array.stride() == (24, 6, 1)
    with pytest.raises(InputError):
        read_capsule("x", array.__dlpack__(), array)
    array = torch.zeros(4, 6)[:1]
    assert read_capsule("x", array.__dlpack__(), array).shape == (1, 6)


def test_a_type_that_numpy_lacks_is_refused() -> None:
    array = torch.zeros(3, dtype=torch.complex64)
    with pytest.raises(InputError, match="DLPack code 5, 64 bits"):
        read_capsule("x", array.__dlpack__(), array)


class OnGpu:
    """A tensor of the host that says it lies on a GPU, and notes the streams it is asked for."""

    def __init__(self, tensor: torch.Tensor, device: int = 0) -> None:
        self.tensor, self.device = tensor, device
        self.streams: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        assert stream is not None
        self.streams.append(stream)
        return self.tensor.__dlpack__()


class Engine:
    """y = 2 x on whatever was bound, as an engine on a GPU would do."""

    device = 0
    stream = 17

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Engine:
        self.inputs, self.outputs = inputs, outputs
        return self

    def run(self) -> None:
        x, y = self.array(self.inputs["x"]), self.array(self.outputs["y"])
        y[...] = 2 * x

    @staticmethod
    def array(value: Any) -> np.ndarray:
        if isinstance(value, np.ndarray):
            return value
        import ctypes

        raw = (ctypes.c_ubyte * value.nbytes).from_address(value.address)
        return np.frombuffer(raw, value.dtype).reshape(value.shape)


SIGNATURE = Signature(
    (TensorSpec("x", "float32", (Dim("batch", 1, 8), 2)),),
    (TensorSpec("y", "float32", (Dim("batch", 1, 8), 2)),),
)


def test_arrays_on_the_gpu_are_read_and_written_where_they_lie() -> None:
    engine = Engine()
    x, y = OnGpu(torch.ones(3, 2)), OnGpu(torch.zeros(3, 2))
    binding = DeviceBinding(engine, SIGNATURE, {"x": x}, {"y": y})
    assert binding.run()["y"] is y
    np.testing.assert_array_equal(y.tensor, np.full((3, 2), 2))
    x.tensor.fill_(5)
    binding.run()
    np.testing.assert_array_equal(y.tensor, np.full((3, 2), 10))
    assert x.streams == [-1, 17, 17], "each run is ordered behind the owner's work"
    assert y.streams == [-1, 17, 17]


def test_arrays_of_host_and_gpu_mix() -> None:
    x = OnGpu(torch.full((2, 2), 3.0))
    binding = DeviceBinding(Engine(), SIGNATURE, {"x": x}, {})
    outputs = binding.run()
    assert isinstance(outputs["y"], np.ndarray)
    np.testing.assert_array_equal(outputs["y"], np.full((2, 2), 6))
    host = np.ones((2, 2), np.float32)
    y = OnGpu(torch.zeros(2, 2))
    DeviceBinding(Engine(), SIGNATURE, {"x": host}, {"y": y}).run()
    np.testing.assert_array_equal(y.tensor, np.full((2, 2), 2))


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ({"x": OnGpu(torch.ones(3, 2), 1)}, {}, "lies on GPU 1; the session is on 0"),
        ({"x": OnGpu(torch.ones(3, 2).double())}, {}, "dtype float64; float32 is needed"),
        ({"x": OnGpu(torch.ones(3, 3))}, {}, "size 3 in axis 1; it is fixed at 2"),
        ({"x": OnGpu(torch.ones(9, 2))}, {}, "above its upper bound 8"),
        ({"x": OnGpu(torch.ones(2, 2, requires_grad=True))}, {}, "cannot be shared"),
        ({"z": OnGpu(torch.ones(3, 2))}, {}, "there is no input 'z'"),
        ({"x": OnGpu(torch.ones(3, 2))}, {"z": np.ones(3)}, "there is no output 'z'"),
        ({"x": OnGpu(torch.ones(3, 2))}, {"y": OnGpu(torch.ones(4, 2))}, "'y' does not fit"),
        ({"x": OnGpu(torch.ones(3, 2))}, {"y": np.ones((3, 2))}, "'y' does not fit: float64"),
        ({"x": OnGpu(torch.ones(3, 2))}, {"y": [1.0]}, "'y' does not fit"),
        ({"x": np.ones((2, 3), np.float32).T}, {"y": OnGpu(torch.ones(3, 2))}, "not contiguous"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    inputs: dict[str, Any], outputs: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        DeviceBinding(Engine(), SIGNATURE, inputs, outputs)


def test_an_array_that_moved_is_noticed() -> None:
    x = OnGpu(torch.ones(3, 2))
    binding = DeviceBinding(Engine(), SIGNATURE, {"x": x}, {})
    x.tensor, kept = torch.ones(3, 2), x.tensor
    with pytest.raises(InputError, match="another address"):
        binding.run()
    x.tensor = kept
    binding.run()


def test_what_lies_on_a_gpu_is_told_apart() -> None:
    assert on_device(OnGpu(torch.ones(1)))
    for value in (np.ones(1), torch.ones(1), 3, None, "x"):
        assert not on_device(value)
    assert not isinstance(np.ones(1), DeviceArray)
