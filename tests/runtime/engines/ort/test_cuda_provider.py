"""ONNX Runtime on a GPU, as far as it goes without one.

There is no GPU here. What has to do with refusing is real. What runs is real up to the provider:
the engine's own sessions, bindings and places for arrays, on the CPU in place of the GPU.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from small_artifacts import parse

from leptonc.backends import find_backend, parse_target
from leptonc.backends.pack import pack
from leptonc.runtime import load
from leptonc.runtime.artifact.writer import stage_artifact
from leptonc.runtime.engines.ort import cuda as ort_cuda_engine
from leptonc.runtime.engines.ort.cuda_provider import (
    _PROBE,
    CUDA,
    cuda_options,
    missing_part,
    require_cuda,
    session_on_cuda,
)
from leptonc.runtime.engines.ort.library import session_options
from leptonc.runtime.errors import EngineMissingError, MachineError, UnsupportedError

GRAPH = """<ir_version: 10, opset_import: ["" : 20]>
g (float[batch,4] x, int64[batch] n) => (float[batch,300] y, int64[batch] m) {
  y = MatMul(x, w) m = Add(n, n)
}"""


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact for a GPU, `y = x @ w`, whose weight lies outside the graph."""
    weights = {"w": np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)}
    model = parse(GRAPH, weights)
    target = parse_target("ort-cuda")
    payload = find_backend(target).build(model, target, tmp_path)
    sections, variants = pack([payload])
    batch = {"name": "batch", "min": 1, "max": None}
    shapes = {"x": [batch, 4], "n": [batch], "y": [batch, 300], "m": [batch]}
    types = {"x": "float32", "n": "int64", "y": "float32", "m": "int64"}
    spec = {name: {"name": name, "dtype": types[name], "shape": shapes[name]} for name in shapes}
    manifest = {
        "leptonc": "0",
        "name": "g",
        "signature": {"inputs": [spec["x"], spec["n"]], "outputs": [spec["y"], spec["m"]]},
        "variants": variants,
    }
    path = tmp_path / "g.lepton"
    with stage_artifact(path) as staged:
        staged.write(sections, manifest)
        staged.commit()
    return path


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let the CPU provider take the place of the GPU's; returns what was asked for."""
    asked: list[dict[str, Any]] = []

    def opened(engine: Any, graph: bytes, options: Any, settings: Any, *, graphs: bool) -> Any:
        asked.append({**settings, "graphs": graphs})
        options.graph_optimization_level = engine.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        return engine.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort_cuda_engine, "session_on_cuda", opened)
    monkeypatch.setattr(ort_cuda_engine, "_DEVICE", "cpu")
    return asked


def test_an_engine_without_the_provider_says_how_to_get_it() -> None:
    with pytest.raises(EngineMissingError, match="without its CUDA provider") as caught:
        require_cuda(onnxruntime)
    assert caught.value.exit_code == 5
    assert "leptonc[gpu]" in str(caught.value.fix)


def test_loading_on_a_gpu_that_is_not_there_is_refused(artifact: Path) -> None:
    with pytest.raises(EngineMissingError, match="without its CUDA provider"):
        load(artifact, device="gpu")


def test_an_artifact_for_a_gpu_does_not_run_on_the_cpu(artifact: Path) -> None:
    with pytest.raises(UnsupportedError, match="no variant that this build can run on 'cpu'"):
        load(artifact)


def test_cuda_graphs_are_for_gpus(artifact: Path) -> None:
    with pytest.raises(UnsupportedError, match="on a GPU only"):
        load(artifact, cuda_graphs=True)


class SilentEngine:
    """What ONNX Runtime's GPU build does without a GPU: it offers CUDA, and opens on the CPU."""

    __version__ = "1.31.1"
    GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel
    capi = onnxruntime.capi

    @staticmethod
    def get_available_providers() -> list[str]:
        return [CUDA, "CPUExecutionProvider"]

    @staticmethod
    def set_default_logger_severity(level: int) -> None:
        assert level == 4

    @staticmethod
    def preload_dlls() -> None:
        print("Failed to load libcublas")

    @staticmethod
    def InferenceSession(graph: bytes, options: Any, providers: Any, **_: Any) -> Any:
        assert providers[0] == (CUDA, cuda_options())
        return onnxruntime.InferenceSession(graph, options, providers=providers[1:])


def test_a_session_that_fell_back_to_the_cpu_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    options = session_options(onnxruntime)
    with pytest.raises(MachineError, match="cannot use a GPU here: there is no NVIDIA") as caught:
        session_on_cuda(SilentEngine, _PROBE, options, {})
    assert caught.value.exit_code == 5
    assert capfd.readouterr().out == ""


def test_the_probe_is_a_model() -> None:
    session = onnxruntime.InferenceSession(_PROBE, providers=["CPUExecutionProvider"])
    x = np.array([2.5], np.float32)
    assert session.run(None, {"x": x})[0] == x


class Driver:
    """The calls of the driver that are made, with the answers of one that is there."""

    def __init__(self, start: int = 0, gpus: int = 1) -> None:
        self.start, self.gpus = start, gpus

    def cuInit(self, flags: int) -> int:
        return self.start + flags

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.gpus
        return 0


@pytest.mark.parametrize(
    ("driver", "library", "words"),
    [
        (None, True, "there is no NVIDIA driver"),
        (Driver(start=999), True, "does not start .cuInit gave error 999."),
        (Driver(gpus=0), True, "finds no GPU"),
        (Driver(), False, "is missing: libcublasLt.so.13"),
        (Driver(), True, "may be too old"),
    ],
)
def test_what_is_missing_is_named_in_order(driver: Any, library: bool, words: str) -> None:
    def opening(name: str) -> Any:
        if name == "libcuda.so.1" and driver is not None:
            return driver
        if name != "libcuda.so.1" and library:
            return ctypes.CDLL(None)
        raise OSError("libcublasLt.so.13: cannot open shared object file")

    assert re.search(words, missing_part(onnxruntime, opening))


def inputs(scale: float = 1.0) -> dict[str, np.ndarray]:
    x = np.arange(8, dtype=np.float32).reshape(2, 4) * np.float32(scale)
    return {"x": x, "n": np.array([1, 2])}


def test_calls_and_bound_runs_agree(artifact: Path, on_cpu: list[dict[str, Any]]) -> None:
    with load(artifact, device="gpu") as session:
        session.warm_up()
        assert session.variant == "ort-cuda"
        binding = session.bind(inputs())
        for scale in (1.0, 0.5):
            binding.inputs["x"][...] = inputs(scale)["x"]
            bound = binding.run()
            called = session.run(inputs(scale))
            np.testing.assert_array_equal(bound["y"], called["y"])
            np.testing.assert_array_equal(bound["m"], [2, 4])
    assert on_cpu == [
        {
            "optimize": "extended",
            "disabled_optimizers": "Pad_Fusion",
            "provider": CUDA,
            "graphs": False,
        }
    ]


def test_bound_runs_fill_the_arrays_that_are_brought(
    artifact: Path, on_cpu: list[dict[str, Any]]
) -> None:
    y = np.empty((2, 300), np.float32)
    with load(artifact, device="gpu") as session:
        binding = session.bind(inputs(), {"y": y})
        assert binding.run()["y"] is y
        np.testing.assert_array_equal(y, session.run(inputs())["y"])


def test_each_binding_records_a_run_of_its_own(
    artifact: Path, on_cpu: list[dict[str, Any]]
) -> None:
    with load(artifact, device="gpu", cuda_graphs=True) as session:
        first, second = session.bind(inputs()), session.bind(inputs())
        ids = [
            bound._binding.run_options.get_run_config_entry("gpu_graph_id")
            for bound in (first, second)
        ]
        np.testing.assert_array_equal(first.run()["y"], second.run()["y"])
    assert ids == ["1", "2"]
    assert on_cpu[0]["graphs"] is True


def test_options_of_the_provider_are_texts() -> None:
    assert cuda_options(graphs=True)["enable_cuda_graph"] == "1"
    assert cuda_options(device=3)["device_id"] == "3"
    assert all(isinstance(value, str) for value in cuda_options().values())
