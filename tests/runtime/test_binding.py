"""Runs without copies: the same arrays in and out, and what cannot be bound."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_artifacts import build, expected, parse, sample, spec

from leptonc.runtime import load
from leptonc.runtime.errors import InputError


def test_a_binding_reads_and_writes_the_same_arrays(linear: Path) -> None:
    x = sample(4)
    binding = load(linear).bind({"x": x})
    place = binding.outputs["y"].ctypes.data
    for seed in range(3):
        x[...] = sample(4, seed)
        outputs = binding.run()
        np.testing.assert_allclose(outputs["y"], expected(x), rtol=1e-5, atol=1e-5)
        assert outputs["y"] is binding.outputs["y"]
        assert outputs["y"].ctypes.data == place
    assert binding.inputs["x"] is x
    assert binding.outputs["y"].shape == (4, 16)


def test_the_caller_may_bring_the_outputs(linear: Path) -> None:
    x, y = sample(4), np.zeros((4, 16), np.float32)
    binding = load(linear).bind({"x": x}, outputs={"y": y})
    assert binding.run()["y"] is y
    np.testing.assert_allclose(y, expected(x), rtol=1e-5, atol=1e-5)


def test_runs_of_a_binding_allocate_no_arrays(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[n] x) => (float[n] y) { y = Neg(x) }'
    n = {"name": "n", "min": 1, "max": None}
    path = build(
        tmp_path / "m.lepton",
        parse(text),
        [spec("x", "float32", n)],
        [spec("y", "float32", n)],
        tmp_path,
    )
    binding = load(path, threads=1).bind({"x": np.ones(1 << 20, np.float32)})
    arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    tracemalloc.start()
    try:
        for _ in range(50):
            binding.run()
        peak = tracemalloc.get_traced_memory()[1]
        allocated = tracemalloc.take_snapshot().filter_traces([arrays]).traces
    finally:
        tracemalloc.stop()
    assert list(allocated) == []
    # Python's own frames and arguments; one copy of an array would be 4 MiB.
    assert peak < 1 << 16


def test_an_output_that_is_an_input_is_copied_into_the_bound_array(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[4] x) => (float[4] y) { y = Identity(x) }'
    path = build(
        tmp_path / "m.lepton",
        parse(text),
        [spec("x", "float32", 4)],
        [spec("y", "float32", 4)],
        tmp_path,
    )
    x = np.arange(4, dtype=np.float32)
    binding = load(path).bind({"x": x})
    for value in (1, 2):
        x[...] = value
        assert binding.run()["y"].tolist() == [value] * 4
        assert not np.shares_memory(binding.outputs["y"], x)


def test_a_binding_outlives_its_session(linear: Path) -> None:
    x = sample(2)
    session = load(linear)
    binding = session.bind({"x": x})
    session.close()
    del session
    gc.collect()
    np.testing.assert_allclose(binding.run()["y"], expected(x), rtol=1e-5, atol=1e-5)


BINDINGS = [
    ({"x": np.ones((32, 4), np.float32).T}, {}, "cannot be bound: it is not contiguous"),
    ({"x": np.ones((9, 32), np.float32)}, {}, "above its upper bound 8"),
    ({}, {}, "the input 'x' is missing"),
    ({"x": np.ones((2, 32), np.float32)}, {"z": 1}, "there is no output 'z'"),
    ({"x": np.ones((2, 32), np.float32)}, {"y": np.ones((2, 15), np.float32)}, "does not fit"),
    ({"x": np.ones((2, 32), np.float32)}, {"y": np.ones((3, 16), np.float32)}, "does not fit"),
    ({"x": np.ones((2, 32), np.float32)}, {"y": np.ones(2, np.float32)}, "does not fit"),
    ({"x": np.ones((2, 32), np.float32)}, {"y": np.ones((2, 16))}, "does not fit: float64"),
    ({"x": np.ones((2, 32), np.float32)}, {"y": np.ones((16, 2), np.float32).T}, "does not fit"),
    (
        {"x": np.ones((2, 32), np.float32)},
        {"y": np.broadcast_to(np.float32(0), (2, 16))},
        "does not fit",
    ),
]


@pytest.mark.parametrize(("inputs", "outputs", "message"), BINDINGS)
def test_what_cannot_be_bound_is_refused(
    inputs: dict[str, Any], outputs: dict[str, Any], message: str, linear: Path
) -> None:
    with pytest.raises(InputError, match=message):
        load(linear).bind(inputs, outputs)


def test_an_output_of_unknown_shape_needs_an_array_of_the_caller(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[n] x) => (int64[1, k] y) { y = NonZero(x) }'
    free = {"name": "k", "min": 0, "max": None}
    path = build(
        tmp_path / "m.lepton",
        parse(text),
        [spec("x", "float32", {"name": "n", "min": 1, "max": None})],
        [spec("y", "int64", 1, free)],
        tmp_path,
    )
    session = load(path)
    x = np.array([0, 1, 2], np.float32)
    with pytest.raises(InputError, match="no input has the dimension 'k'") as caught:
        session.bind({"x": x})
    assert "outputs={'y': numpy.empty(...)}" in str(caught.value)
    binding = session.bind({"x": x}, outputs={"y": np.empty((1, 2), np.int64)})
    assert binding.run()["y"].tolist() == [[1, 2]]
