"""Loading artifacts with TensorRT variants: every check before the plan, and the choice of variant.

On this machine everything is real up to the driver, which there is none of. Behind it stand the
doubles of doubles.py.
"""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import FakeCudart, FakeEngine, FakeTensorRT, without_driver
from plan_artifacts import demands, plan_artifact, plan_variant, real_plan, sizes, two_variants
from small_artifacts import BATCH, expected, manifest, sample, section, spec, write

from leptonc.runtime import load
from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import open_artifact
from leptonc.runtime.engines.loaders import DEMANDS
from leptonc.runtime.engines.tensorrt import library as tensorrt
from leptonc.runtime.engines.tensorrt import opening as tensorrt_open
from leptonc.runtime.errors import (
    ArtifactError,
    EngineError,
    EngineMissingError,
    InputError,
    IntegrityError,
    MachineError,
    UnsupportedError,
)
from leptonc.runtime.machine import version_numbers
from leptonc.runtime.variant_choice import candidates


def relu(inputs: Any) -> Any:
    return {"y": np.maximum(inputs["x"][:, :2] + inputs["x"][:, 2:3], 0)}


class Machine:
    """A machine with a GPU, as far as `load` can see."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.cudart = FakeCudart()
        outputs = {"y": ("float32", lambda shapes: (shapes["x"][0], 2))}
        self.plan = FakeEngine(self.cudart, {"x": "float32"}, outputs, relu)
        self.module = FakeTensorRT(self.plan)
        self.asked: list[str] = []
        patch.setattr(tensorrt_open, "import_engine", self.import_engine)
        patch.setattr(tensorrt_open, "import_cuda", lambda: self.cudart)

    def import_engine(self, flavour: str) -> Any:
        self.asked.append(flavour)
        return self.module


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    found = Machine(monkeypatch)
    yield found
    gc.collect()
    assert (found.cudart.device, found.cudart.pinned) == ({}, {})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return plan_artifact(tmp_path / "m.lepton")


X = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def test_a_session_on_a_gpu(path: Path, machine: Machine) -> None:
    with load(path, device="gpu") as session:
        assert session.variant == "tensorrt"
        np.testing.assert_array_equal(session(x=X)["y"], relu({"x": X})["y"])
        run = session.run_async({"x": X})
        np.testing.assert_array_equal(run.result()["y"], relu({"x": X})["y"])
        binding = session.bind({"x": X.copy()})
        np.testing.assert_array_equal(binding.run()["y"], relu({"x": X})["y"])
        session.warm_up()
        with pytest.raises(InputError, match="dtype float64"):
            session.run_async({"x": X.astype(np.float64)})
        del binding
    with pytest.raises(InputError, match="closed"):
        session.run_async({"x": X})
    assert machine.module.plans == [real_plan("8.6", "8.9")]


def test_the_cache_lies_beside_the_artifact_or_where_it_is_asked_for(
    path: Path, machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    for chosen, folder in (
        (False, None),
        (tmp_path / "cache", tmp_path / "cache"),
        (True, tmp_path),
    ):
        with load(path, device="gpu", runtime_cache=chosen) as session:
            session(x=X)
        found = sorted(tmp_path.rglob("*.rtxcache"))
        if folder is None:
            assert found == []
        else:
            assert [entry.parent for entry in found if entry.parent == folder] == [folder]
    assert list(tmp_path.glob("*.partial")) == []


def refused(path: Path, machine: Machine, kind: type[Exception], words: str, **options: Any) -> str:
    with pytest.raises(kind, match=words) as caught:
        load(path, device="gpu", **options)
    assert machine.module.plans == [], "nothing may reach TensorRT"
    return str(caught.value)


def test_another_gpu_is_named_with_the_ones_it_was_built_for(path: Path, machine: Machine) -> None:
    machine.cudart.capability = "9.0"
    text = refused(path, machine, MachineError, "capability 9.0; the plan was built for 8.6 or 8.9")
    assert "--flavour classic" in text
    assert "variant 'tensorrt'" in text


def test_another_version_of_tensorrt_is_named(path: Path, machine: Machine) -> None:
    machine.module.__version__ = "1.8.0.10"  # type: ignore[misc]
    refused(
        path, machine, EngineMissingError, "1.8.0.10 is installed; the plan needs exactly 1.7.1"
    )
    assert "cudaSetDevice" not in machine.cudart.calls


def test_another_system_is_refused_before_anything_is_imported(
    tmp_path: Path, machine: Machine
) -> None:
    wanted = demands(os="windows-x86_64")
    path = plan_artifact(tmp_path / "m.lepton", demands=wanted)
    refused(path, machine, MachineError, "built for windows-x86_64")
    assert machine.asked == []


@pytest.mark.parametrize("verify", [True, False])
def test_a_damaged_plan_is_never_handed_over(path: Path, machine: Machine, verify: bool) -> None:
    plan = real_plan("8.6", "8.9")
    data = path.read_bytes()
    place = data.index(plan) + len(plan) // 2
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    refused(path, machine, IntegrityError, "tensorrt/graph", verify=verify)


def test_a_plan_of_another_build_is_never_handed_over(tmp_path: Path, machine: Machine) -> None:
    path = plan_artifact(tmp_path / "m.lepton", real_plan("12.0"))
    refused(path, machine, ArtifactError, "code for compute capability 12.0")
    path = plan_artifact(tmp_path / "n.lepton", b"not a plan" * 100)
    refused(path, machine, ArtifactError, "not a plan of TensorRT-RTX")


def test_what_was_hashed_is_what_is_used(path: Path) -> None:
    with open_artifact(path, DEMANDS) as artifact:
        plan = tensorrt.checked_plan(artifact, artifact.manifest.variants[0])
        assert type(plan) is bytes
        assert plan == real_plan("8.6", "8.9")


@without_driver
def test_without_a_driver_the_real_libraries_are_asked_and_the_answer_is_clear(path: Path) -> None:
    with pytest.raises(MachineError, match="there is no NVIDIA driver on this machine") as caught:
        load(path, device="gpu")
    assert caught.value.exit_code == 5


@without_driver
def test_the_real_tensorrt_refuses_a_plan_without_a_gpu_in_its_own_words(path: Path) -> None:
    with open_artifact(path, DEMANDS) as artifact:
        plan = tensorrt.checked_plan(artifact, artifact.manifest.variants[0])
    script = (
        "import sys; from leptonc.runtime import EngineError\n"
        "from leptonc.runtime.engines.tensorrt import library as t\n"
        "engine = t.import_engine('tensorrt-rtx')\n"
        "try: t.deserialize(engine, sys.stdin.buffer.read(), 'here')\n"
        "except EngineError as error: print(error)\n"
    )
    # TensorRT keeps the first logger of a process: in this one that is the builder's.
    done = subprocess.run(
        [sys.executable, "-c", script], input=plan, capture_output=True, check=True
    )
    assert b"TensorRT refuses the plan: " in done.stdout
    assert b"CUDA driver version is insufficient" in done.stdout


def test_the_names_we_use_exist_in_the_real_tensorrt() -> None:
    trt = tensorrt.import_engine("tensorrt-rtx")
    assert version_numbers(trt.__version__) == (1, 7, 1, 116)
    names = {
        trt.ICudaEngine: [
            *("num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_dtype"),
            *("get_tensor_location", "num_optimization_profiles", "create_execution_context"),
            *("get_weight_streaming_automatic_budget", "weight_streaming_budget_v2"),
            *("create_runtime_config", "get_device_memory_size_for_profile_v2"),
        ],
        trt.IExecutionContext: [
            *("set_optimization_profile_async", "set_input_shape", "infer_shapes"),
            *("get_tensor_shape", "set_tensor_address", "set_output_allocator"),
            *("execute_async_v3", "is_stream_capturable"),
        ],
        trt.IRuntimeConfig: [
            *("create_runtime_cache", "set_runtime_cache", "cuda_graph_strategy"),
            "set_execution_context_allocation_strategy",
        ],
        trt.IRuntimeCache: ["serialize", "deserialize"],
        trt.Refitter: ["set_named_weights", "get_missing_weights", "refit_cuda_engine"],
        trt.TensorIOMode: ["INPUT"],
        trt.TensorLocation: ["HOST"],
        trt.CudaGraphStrategy: ["WHOLE_GRAPH_CAPTURE"],
        trt.ExecutionContextAllocationStrategy: ["ON_PROFILE_CHANGE"],
        trt.DataType: ["FLOAT", "HALF", "BF16", "INT8", "UINT8", "INT32", "INT64", "BOOL"],
    }
    missing = [
        (owner, name) for owner, has in names.items() for name in has if not hasattr(owner, name)
    ]
    assert missing == []


def test_the_real_allocator_class_can_be_extended_as_we_do() -> None:
    from leptonc.runtime.cuda.driver import Cuda
    from leptonc.runtime.engines.tensorrt.output_allocator import attach_allocator

    trt = tensorrt.import_engine("tensorrt-rtx")
    cudart = FakeCudart()
    output = attach_allocator(trt, Cuda(cudart), "y")
    assert isinstance(output.allocator, trt.IOutputAllocator)
    address = output.allocator.reallocate_output_async("y", 0, 512, 256, 0)
    assert list(cudart.device) == [address]
    output.allocator.notify_shape("y", trt.Dims((2, 3)))
    assert output.shape == (2, 3)
    output.close(Cuda(cudart))


def test_a_missing_engine_says_how_to_get_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(EngineMissingError, match="tensorrt-rtx") as caught:
        load(path, device="gpu")
    assert "leptonc[tensorrt]" in str(caught.value)
    classic = plan_artifact(
        tmp_path / "c.lepton", demands=demands(engine="tensorrt", version="10.9.0.34")
    )
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineMissingError, match="tensorrt cannot|tensorrt is not"):
        load(classic, device="gpu")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.name == "leptonc.runtime"]


@without_driver
def test_auto_falls_to_the_cpu_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = two_variants(tmp_path / "m.lepton")
    with caplog.at_level(logging.WARNING), load(path, device="auto") as session:
        assert session.variant == "ort-cpu"
        x = sample()
        np.testing.assert_allclose(session(x=x)["y"], expected(x), rtol=1e-5, atol=1e-5)
        with pytest.raises(UnsupportedError, match="no asynchronous runs"):
            session.run_async({"x": x})
    [text] = said(caplog)
    assert "the variant 'tensorrt' is not used: there is no NVIDIA driver" in text
    assert "'ort-cpu' runs on cpu instead" in text


@without_driver
def test_without_auto_nothing_falls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = two_variants(tmp_path / "m.lepton")
    with pytest.raises(MachineError, match="no NVIDIA driver"):
        load(path, device="gpu")
    assert load(path).variant == "ort-cpu"
    assert load(path, variant="ort-cpu", device="auto").variant == "ort-cpu"
    with pytest.raises(MachineError, match="no NVIDIA driver"):
        load(path, variant="tensorrt", device="auto")
    assert said(caplog) == []


def test_auto_takes_the_gpu_without_a_word_where_it_works(
    path: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    with load(path, device="auto") as session:
        assert session.variant == "tensorrt"
    assert said(caplog) == []


def test_auto_does_not_hide_a_damaged_file(tmp_path: Path, machine: Machine) -> None:
    path = two_variants(tmp_path / "m.lepton")
    data = path.read_bytes()
    place = data.index(real_plan("8.6", "8.9")) + 200
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(IntegrityError):
        load(path, device="auto")
    wrong = two_variants(
        tmp_path / "n.lepton",
        lambda variant: variant["demands"].update(compute_capabilities=["8.9", "12.0"]),
    )
    with pytest.raises(ArtifactError, match="the manifest says"):
        load(wrong, device="auto")


def test_of_several_plans_the_one_for_this_gpu_is_used(tmp_path: Path, machine: Machine) -> None:
    path = tmp_path / "m.lepton"
    other = plan_variant(
        name="tensorrt-old", graph="old/graph", demands=demands(compute_capabilities=["8.6"])
    )
    write(
        path,
        [section("old/graph", real_plan("8.6")), section("tensorrt/graph", real_plan("8.9"))],
        manifest(
            [spec("x", "float32", BATCH, 4)],
            [spec("y", "float32", BATCH, 2)],
            variants=[other, plan_variant(demands=demands(compute_capabilities=["8.9"]))],
        ),
    )
    with load(path, device="gpu") as session:
        assert session.variant == "tensorrt"
    machine.cudart.capability = "7.5"
    with pytest.raises(MachineError, match="capability 7.5; the plan was built for 8.6") as caught:
        load(path, device="gpu")
    assert "'tensorrt' was tried as well" in caught.value.__notes__[0]


def named(name: str, backend: str, device: str) -> Variant:
    from types import SimpleNamespace

    found: Any = SimpleNamespace(name=name, backend=backend, device=device)
    return found


PLAN, CUDA, CPU = (
    named("tensorrt", "tensorrt", "gpu"),
    named("ort-cuda", "ort", "gpu"),
    named("ort-cpu", "ort", "cpu"),
)


@pytest.mark.parametrize(
    ("device", "name", "chosen"),
    [
        ("cpu", None, ["ort-cpu"]),
        ("gpu", None, ["tensorrt"]),
        ("auto", None, ["tensorrt", "ort-cuda", "ort-cpu"]),
        ("gpu", "ort-cuda", ["ort-cuda"]),
        ("auto", "ort-cpu", ["ort-cpu"]),
    ],
)
def test_the_order_of_variants(device: str, name: str | None, chosen: list[str]) -> None:
    found = candidates((CPU, CUDA, PLAN), device, name, "m")
    assert [variant.name for variant in found] == chosen


@pytest.mark.parametrize(
    ("variants", "device", "name", "words"),
    [
        ((CPU,), "gpu", None, 'or load it with device="cpu"'),
        ((PLAN,), "cpu", None, 'or load it with device="gpu"'),
        ((CPU, PLAN), "cpu", "tensorrt", "runs on 'gpu', not on 'cpu'"),
        ((CPU,), "auto", "tensorrt", "no variant 'tensorrt'"),
        ((named("o", "openvino", "cpu"),), "auto", None, "no variant that this build can run"),
        ((named("o", "openvino", "cpu"),), "auto", "o", "no variant 'o' that this build can run"),
    ],
)
def test_what_there_is_no_variant_for(
    variants: tuple[Variant, ...], device: str, name: str | None, words: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        candidates(variants, device, name, "m")
    assert words in str(caught.value)


def test_a_plan_built_without_its_weights_gets_those_of_the_artifact(tmp_path: Path) -> None:
    """The calls of a refit, on a double: the real one needs a GPU."""
    values = np.arange(8, dtype=np.float32)
    entry = {
        "name": "w",
        "dtype": "float32",
        "shape": [8],
        "section": "weights",
        "offset": 0,
        "length": 32,
    }
    path = tmp_path / "m.lepton"
    write(
        path,
        [section("tensorrt/graph", real_plan("8.6", "8.9")), section("weights", values.tobytes())],
        manifest(
            [spec("x", "float32", BATCH, 4)],
            [spec("y", "float32", BATCH, 2)],
            variants=[plan_variant(weights=[entry])],
        ),
    )
    taken: dict[str, Any] = {}

    class Refitter:
        missing: tuple[str, ...] = ()

        def __init__(self, opened: Any, log: Any) -> None:
            taken["opened"] = opened

        def set_named_weights(self, name: str, weights: Any) -> bool:
            taken[name] = weights
            return name == "w"

        def get_missing_weights(self) -> tuple[str, ...]:
            return self.missing

        def refit_cuda_engine(self) -> bool:
            return True

    from types import SimpleNamespace

    module: Any = FakeTensorRT(FakeEngine(FakeCudart(), {}, {}, relu))
    module.Refitter = Refitter
    module.DataType = SimpleNamespace(FLOAT=SimpleNamespace(itemsize=4))
    module.Weights = lambda kind, address, count: (kind, address, count)
    with open_artifact(path, DEMANDS) as artifact:
        [variant] = artifact.manifest.variants
        tensorrt.refit(module, "opened", artifact, variant)
        import ctypes

        kind, address, count = taken["w"]
        assert (kind, count) == (module.DataType.FLOAT, 8)
        assert list((ctypes.c_float * 8).from_address(address)) == values.tolist()
        Refitter.missing = ("v",)
        with pytest.raises(EngineError, match="cannot be given its weights: 1 are missing"):
            tensorrt.refit(module, "opened", artifact, variant)


def test_sizes_of_the_profile_are_checked_at_each_call(path: Path, machine: Machine) -> None:
    wide = plan_artifact(
        path.parent / "w.lepton",
        demands=demands(profiles=[{"x": sizes([1, 4], [2, 4], [2, 4])}]),
    )
    with load(wide, device="gpu") as session, pytest.raises(InputError, match="takes 1 to 2"):
        session(x=X)


def test_weights_are_streamed_where_the_plan_was_built_for_it(
    tmp_path: Path, machine: Machine
) -> None:
    plan: Any = machine.plan
    plan.get_weight_streaming_automatic_budget = lambda: 4096
    load(plan_artifact(tmp_path / "m.lepton"), device="gpu").close()
    assert not hasattr(plan, "weight_streaming_budget_v2")
    options = {"weight_streaming": "yes"}
    load(plan_artifact(tmp_path / "n.lepton", options=options), device="gpu").close()
    assert plan.weight_streaming_budget_v2 == 4096
