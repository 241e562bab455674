"""Our side of a run on a GPU, over test doubles of CUDA and TensorRT (doubles.py).

What is shown: which bytes go where and when, which context and profile a call gets, what is freed,
what an answer of the libraries becomes. What is not: that NVIDIA's libraries behave like this.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import FakeCudart, FakeEngine, FakeTensorRT

from leptonc.runtime.artifact.signature import Dim, Signature, TensorSpec
from leptonc.runtime.cuda.driver import Cuda
from leptonc.runtime.engines.tensorrt.engine import CacheFile, TensorRTEngine
from leptonc.runtime.engines.tensorrt.kernel_cache import CacheKey, read_cache
from leptonc.runtime.engines.tensorrt.plan_demands import PlanDemands, ShapeRange
from leptonc.runtime.errors import (
    DeviceMemoryError,
    EngineError,
    InputError,
    MachineError,
    UnsupportedError,
)

BATCH = Dim("batch", 1, 64)
SIGNATURE = Signature(
    (TensorSpec("x", "float32", (BATCH, 3)), TensorSpec("n", "int64", (BATCH,))),
    (TensorSpec("y", "float32", (BATCH, 3)), TensorSpec("s", "float32", (BATCH,))),
)


def batches(low: int, best: int, high: int) -> dict[str, ShapeRange]:
    return {
        "x": ShapeRange((low, 3), (best, 3), (high, 3)),
        "n": ShapeRange((low,), (best,), (high,)),
    }


def demands(flavour: str = "tensorrt-rtx") -> PlanDemands:
    profiles = (batches(1, 2, 4), batches(4, 16, 32))
    return PlanDemands(flavour, (1, 7, 1, 116), ("8.9",), "linux-x86_64", profiles)


def double(inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    return {"y": 2 * inputs["x"] + inputs["n"][:, None], "s": inputs["x"].sum(1)}


def plan(cudart: FakeCudart, **changes: Any) -> FakeEngine:
    outputs = {
        "y": ("float32", lambda shapes: (shapes["x"][0], 3)),
        "s": ("float32", lambda shapes: (shapes["x"][0],)),
    }
    return FakeEngine(
        cudart, {"x": "float32", "n": "int64"}, outputs, double, profiles=2, **changes
    )


@pytest.fixture
def cudart() -> Iterator[FakeCudart]:
    library = FakeCudart()
    yield library
    gc.collect()
    assert (library.device, library.pinned, library.streams, library.events) == ({}, {}, {}, {})


def open_engine(
    opened: FakeEngine, *, flavour: str = "tensorrt-rtx", **options: Any
) -> TensorRTEngine:
    cuda = Cuda(opened.cudart)
    module = FakeTensorRT(opened)
    return TensorRTEngine(module, cuda, opened, SIGNATURE, demands(flavour), **options)


def arrays(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "x": generator.standard_normal((batch, 3)).astype(np.float32),
        "n": generator.integers(-9, 9, batch),
    }


def check(outputs: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> None:
    assert list(outputs) == ["y", "s"]
    for name, expected in double(inputs).items():
        np.testing.assert_array_equal(outputs[name], expected.astype(np.float32))


def test_runs_give_the_functions_values_in_arrays_of_their_own(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    first, second = arrays(2, 1), arrays(2, 2)
    kept = engine.run(first)
    check(engine.run(second), second)
    check(kept, first)
    engine.close()


def test_each_profile_has_one_context_made_when_it_is_needed(cudart: FakeCudart) -> None:
    opened = plan(cudart)
    engine = open_engine(opened)
    assert [context.profile for context in opened.contexts] == [0]
    for batch in (1, 3, 4):
        check(engine.run(arrays(batch)), arrays(batch))
    assert [context.profile for context in opened.contexts] == [0]
    check(engine.run(arrays(16)), arrays(16))
    assert [context.profile for context in opened.contexts] == [0, 1]
    assert [context.runs for context in opened.contexts] == [3, 1]
    engine.close()


def test_finish_makes_all_contexts(cudart: FakeCudart) -> None:
    opened = plan(cudart)
    engine = open_engine(opened)
    engine.finish()
    assert len(opened.contexts) == 2
    engine.close()


def test_a_shape_outside_every_profile_is_refused_before_anything_runs(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    with pytest.raises(InputError, match="has 40 in axis 0, where it takes 4 to 32"):
        engine.run(arrays(40))
    engine.close()


def test_runs_in_flight_have_memory_of_their_own(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    inputs = [arrays(3, seed) for seed in range(4)]
    given = [{name: array.copy() for name, array in entry.items()} for entry in inputs]
    pending = [engine.start(entry) for entry in given]
    for entry in given:
        entry["x"][...] = 0
    assert not any(run.done() for run in pending)
    for run, entry in reversed(list(zip(pending, inputs, strict=True))):
        check(run.result(), entry)
        assert run.done()
        assert run.result() is run.result()
    assert len(cudart.device) == 4
    check(engine.run(inputs[0]), inputs[0])
    assert len(cudart.device) == 4, "memory of finished runs is used again"
    engine.close()


def test_memory_of_a_forgotten_run_is_not_used_before_it_is_done(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    engine.start(arrays(3))
    gc.collect()
    second = engine.start(arrays(3, 5))
    assert len(cudart.device) == 2
    check(second.result(), arrays(3, 5))
    third = engine.start(arrays(3, 6))
    assert len(cudart.device) == 2
    check(third.result(), arrays(3, 6))
    engine.close()


def test_other_sizes_take_the_place_of_smaller_memory(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    for batch in (4, 32, 5, 20):
        check(engine.run(arrays(batch)), arrays(batch))
    assert len(cudart.device) == 2, "one block for each profile"
    engine.close()


def test_many_threads(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for batch in (1, 4, 8):
                check(engine.run(arrays(batch, seed)), arrays(batch, seed))
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    engine.close()


def test_close_frees_everything_and_may_come_twice(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    engine.run(arrays(2))
    assert cudart.device
    engine.close()
    assert (cudart.device, cudart.pinned, cudart.streams) == ({}, {}, {})
    engine.close()


def test_an_engine_that_is_let_go_frees_everything(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    engine.run(arrays(2))
    del engine
    gc.collect()
    assert (cudart.device, cudart.pinned) == ({}, {})


def test_memory_that_runs_out_leaves_the_engine_working() -> None:
    cudart = FakeCudart(memory=3000)
    engine = open_engine(plan(cudart))
    check(engine.run(arrays(2)), arrays(2))
    kept = Cuda(cudart).allocate(1800, "something else")
    with pytest.raises(
        DeviceMemoryError, match=r"1\.5 kB were asked for.*0\.2 kB of 3\.0 kB are free"
    ):
        engine.run(arrays(32))
    check(engine.run(arrays(2)), arrays(2))
    Cuda(cudart).release(kept)
    check(engine.run(arrays(32)), arrays(32))
    engine.close()


def test_a_context_that_does_not_fit_names_its_memory(cudart: FakeCudart) -> None:
    with pytest.raises(DeviceMemoryError, match="intermediate values of profile 0"):
        open_engine(plan(cudart, scratch=1 << 30))
    opened = plan(cudart)
    opened.no_context = True
    with pytest.raises(EngineError, match="makes no context"):
        open_engine(opened)


@pytest.mark.parametrize(
    ("refuse", "words"),
    [("run", "the run cannot start"), ("shape", r"the shape \[2, 3\] of input 'x' is refused")],
)
def test_what_tensorrt_refuses_is_an_engine_error(
    refuse: str, words: str, cudart: FakeCudart
) -> None:
    opened = plan(cudart)
    engine = open_engine(opened)
    opened.contexts[0].refuse = refuse
    with pytest.raises(EngineError, match=words):
        engine.run(arrays(2))
    opened.contexts[0].refuse = ""
    check(engine.run(arrays(2)), arrays(2))
    engine.close()


def test_a_plan_with_other_tensors_than_the_signature_is_refused(cudart: FakeCudart) -> None:
    opened = plan(cudart)
    opened.inputs = {"x": "float16", "n": "int64"}
    with pytest.raises(EngineError, match="'x' of type HALF is not in the manifest's signature"):
        open_engine(opened)
    opened = plan(cudart)
    opened.names, opened.num_io_tensors = ["x", "n", "y"], 3
    with pytest.raises(EngineError, match="lacks 's'"):
        open_engine(opened)
    opened = plan(cudart)
    opened.num_optimization_profiles = 1
    with pytest.raises(EngineError, match="has 1 profiles; the manifest names 2"):
        open_engine(opened)


def test_a_gpu_error_during_a_run_is_raised(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    run = engine.start(arrays(2))
    cudart.fail["cudaEventSynchronize"] = 700
    with pytest.raises(EngineError, match="the GPU failed"):
        run.result()
    cudart.fail.clear()
    check(run.result(), arrays(2))
    engine.close()


SHAPE_INPUT = Signature(
    (TensorSpec("x", "float32", (BATCH, 3)), TensorSpec("n", "int64", (1,))),
    (TensorSpec("y", "float32", (Dim("k"), 3)),),
)


def test_an_input_that_the_engine_reads_on_the_host(cudart: FakeCudart) -> None:
    opened = FakeEngine(
        cudart,
        {"x": "float32", "n": "int64"},
        {"y": ("float32", lambda shapes: (int(shapes["n"][0]), 3))},
        lambda inputs: {"y": inputs["x"][: int(inputs["n"][0])]},
        host_inputs=("n",),
    )
    profile = {"x": ShapeRange((1, 3), (4, 3), (8, 3))}
    wanted = PlanDemands("tensorrt", (10, 9), ("8.9",), "linux-x86_64", (profile,))
    engine = TensorRTEngine(FakeTensorRT(opened), Cuda(cudart), opened, SHAPE_INPUT, wanted)
    x = arrays(5)["x"]
    for count in (2, 5, 0):
        y = engine.run({"x": x, "n": np.array([count])})["y"]
        np.testing.assert_array_equal(y, x[:count])
    engine.close()


POSITIVE = Signature(
    (TensorSpec("x", "float32", (BATCH,)),), (TensorSpec("y", "float32", (Dim("k"),)),)
)


def positive(cudart: FakeCudart) -> TensorRTEngine:
    opened = FakeEngine(
        cudart,
        {"x": "float32"},
        {"y": ("float32", lambda shapes: (-1,))},
        lambda inputs: {"y": inputs["x"][inputs["x"] > 0]},
    )
    profile = {"x": ShapeRange((1,), (4,), (512,))}
    wanted = PlanDemands("tensorrt-rtx", (1, 7), ("8.9",), "linux-x86_64", (profile,))
    return TensorRTEngine(FakeTensorRT(opened), Cuda(cudart), opened, POSITIVE, wanted)


def test_outputs_whose_size_values_decide(cudart: FakeCudart) -> None:
    engine = positive(cudart)
    for values in ([1, -2, 3], [-1, -1], np.arange(-5, 300), [7]):
        x = np.asarray(values, np.float32)
        np.testing.assert_array_equal(engine.run({"x": x})["y"], x[x > 0])
    pending = [engine.start({"x": np.asarray(v, np.float32)}) for v in ([1, 2, -3], [4, -5, -6])]
    assert [run.result()["y"].tolist() for run in pending] == [[1, 2], [4]]
    with pytest.raises(UnsupportedError, match="'y' depends on values"):
        engine.bind({"x": np.ones(3, np.float32)}, {"y": np.ones(3, np.float32)})
    engine.close()


def test_memory_that_such_an_output_does_not_get() -> None:
    cudart = FakeCudart(memory=2048)
    engine = positive(cudart)
    assert engine.run({"x": np.ones(4, np.float32)})["y"].shape == (4,)
    with pytest.raises(DeviceMemoryError, match="the output 'y'"):
        engine.run({"x": np.ones(400, np.float32)})
    engine.close()
    assert cudart.device == {}


def bound(engine: TensorRTEngine, batch: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    inputs = arrays(batch)
    outputs = {
        "y": np.zeros((batch, 3), np.float32),
        "s": np.zeros(batch, np.float32),
    }
    return engine.bind(inputs, outputs), inputs, outputs


@pytest.mark.parametrize("flavour", ["tensorrt-rtx", "tensorrt"])
@pytest.mark.parametrize("graphs", [False, True])
def test_bound_arrays_are_read_and_written_by_every_run(
    flavour: str, graphs: bool, cudart: FakeCudart
) -> None:
    opened = plan(cudart)
    engine = open_engine(opened, flavour=flavour, graphs=graphs)
    binding, inputs, outputs = bound(engine, 3)
    blocks = len(cudart.device)
    for seed in range(5):
        for name, array in arrays(3, seed).items():
            inputs[name][...] = array
        engine.run_bound(binding, inputs)
        check(outputs, inputs)
        check(engine.run(arrays(2, seed)), arrays(2, seed))
    assert len(cudart.device) <= blocks + 1
    recorded = cudart.calls.count("cudaStreamBeginCapture")
    assert recorded == (1 if graphs and flavour == "tensorrt" else 0)
    assert cudart.calls.count("cudaGraphLaunch") == (4 if recorded else 0)
    if flavour == "tensorrt-rtx":
        assert opened.config.cuda_graph_strategy == (1 if graphs else None)
    del binding
    engine.close()


def test_a_recording_has_a_context_to_itself(cudart: FakeCudart) -> None:
    opened = plan(cudart)
    engine = open_engine(opened, flavour="tensorrt", graphs=True)
    first, _, _ = bound(engine, 3)
    second, _, _ = bound(engine, 3)
    assert len(opened.contexts) == 3
    for binding in (first, second):
        for _ in range(3):
            binding.run()
    assert [context.runs for context in opened.contexts] == [0, 2, 2]
    del first, binding
    gc.collect()
    assert len(cudart.streams) == 2, "a context that is not used any more is freed"
    del second
    engine.close()


def test_a_recording_that_fails_is_ended(cudart: FakeCudart) -> None:
    opened = plan(cudart)
    engine = open_engine(opened, flavour="tensorrt", graphs=True)
    binding, inputs, outputs = bound(engine, 3)
    binding.run()
    opened.contexts[-1].refuse = "run"
    with pytest.raises(EngineError, match="cannot start"):
        binding.run()
    assert cudart.recording == {}
    opened.contexts[-1].refuse = ""
    binding.run()
    check(outputs, inputs)
    del binding
    engine.close()


def test_bound_outputs_of_the_wrong_shape_are_refused(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    with pytest.raises(InputError, match="'y' has shape"):
        engine.bind(arrays(2), {"y": np.zeros((3, 3), np.float32), "s": np.zeros(2, np.float32)})
    engine.close()


def test_a_binding_that_outlives_the_engine_frees_its_memory(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    binding, _, _ = bound(engine, 3)
    engine.close()
    del binding
    gc.collect()
    assert (cudart.device, cudart.pinned) == ({}, {})


def test_compiled_kernels_are_kept_for_the_next_start(cudart: FakeCudart, tmp_path: Path) -> None:
    key = CacheKey("plan", "1.7.1.116", "8.9", 13000)
    file = CacheFile(str(tmp_path / "m.rtxcache"), key)
    engine = open_engine(plan(cudart), cache_file=file)
    engine.run(arrays(2))
    engine.run(arrays(2))
    assert read_cache(file.path, key) == b"kernels:k"
    engine.run(arrays(16))
    assert read_cache(file.path, key) == b"kernels:kk"
    engine.close()
    opened = plan(cudart)
    again = open_engine(opened, cache_file=file)
    assert opened.config.cache.kernels == b"kkk"
    again.close()
    assert read_cache(file.path, key) == b"kernels:kkk"


def test_a_place_for_the_cache_that_cannot_be_written_is_no_error(
    cudart: FakeCudart, tmp_path: Path
) -> None:
    file = CacheFile(str(tmp_path / "absent" / "m"), CacheKey("p", "1", "8.9", 1))
    engine = open_engine(plan(cudart), cache_file=file)
    check(engine.run(arrays(2)), arrays(2))
    engine.close()
    assert list(tmp_path.iterdir()) == []


def test_a_driver_that_is_gone_at_the_end_is_not_an_error(cudart: FakeCudart) -> None:
    engine = open_engine(plan(cudart))
    cudart.fail["cudaSetDevice"] = 100
    engine.close()
    cudart.fail.clear()
    with pytest.raises(MachineError):
        cudart.fail["cudaSetDevice"] = 100
        Cuda(cudart)
    cudart.streams.clear()
