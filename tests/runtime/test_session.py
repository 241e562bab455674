"""Loading and running artifacts, and every reason not to."""

from __future__ import annotations

import builtins
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_artifacts import build, expected, linear_weights, linear_with, parse, sample, spec

import leptonc.runtime
from leptonc.runtime import load
from leptonc.runtime.engines.ort import library as ort
from leptonc.runtime.errors import (
    ArtifactError,
    EngineError,
    EngineMissingError,
    InputError,
    IntegrityError,
    LeptonError,
    MachineError,
    UnsupportedError,
)


def test_a_loaded_model_answers(linear: Path) -> None:
    x = sample()
    with load(linear, threads=1) as session:
        np.testing.assert_allclose(session(x=x)["y"], expected(x), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(session.run({"x": x})["y"], session(x=x)["y"])
        assert list(session(x=x)) == ["y"]
        assert session(x=x)["y"].dtype == np.float32


def test_a_session_describes_itself(linear: Path) -> None:
    session = load(linear)
    assert str(session.signature) == "(x: float32[batch, 32]) -> (y: float32[batch, 16])"
    assert session.signature.inputs[0].shape[0] == leptonc.runtime.Dim("batch", 1, 8)
    assert session.variant == "ort-cpu"
    assert session.manifest["source"]["kind"] == "test"
    assert "ort-cpu" in repr(session)


def test_the_weights_are_outside_the_graph_and_mapped(linear: Path) -> None:
    session = load(linear)
    [weight] = session.manifest["variants"][0]["weights"]
    assert (weight["name"], weight["shape"], weight["length"]) == ("w", [32, 16], 2048)
    assert weight["offset"] % 64 == 0


def test_each_call_gives_arrays_of_its_own(linear: Path) -> None:
    session = load(linear)
    first = session(x=sample(seed=1))["y"]
    kept = first.copy()
    session(x=sample(seed=2))
    np.testing.assert_array_equal(first, kept)


def test_arrays_that_are_not_contiguous_are_taken(linear: Path) -> None:
    wide = np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)
    session = load(linear)
    np.testing.assert_allclose(session(x=wide.T)["y"], expected(wide.T), rtol=1e-5, atol=1e-5)


def test_the_session_outlives_the_file(linear: Path) -> None:
    session = load(linear)
    linear.unlink()
    gc.collect()
    np.testing.assert_allclose(session(x=sample())["y"], expected(sample()), rtol=1e-5, atol=1e-5)


def test_a_wrong_input_never_reaches_the_engine(linear: Path) -> None:
    session = load(linear)
    with pytest.raises(InputError, match="above its upper bound 8"):
        session(x=sample(9))


def test_inputs_may_have_any_name(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[2] self) => (float[2] y) { y = Neg(self) }'
    path = build(
        tmp_path / "m.lepton",
        parse(text),
        [spec("self", "float32", 2)],
        [spec("y", "float32", 2)],
        tmp_path,
    )
    session = load(path)
    assert session(self=np.ones(2, np.float32))["y"].tolist() == [-1, -1]


def test_a_closed_session_says_so(linear: Path) -> None:
    session = load(linear)
    session.close()
    session.close()
    with pytest.raises(InputError, match="the session is closed"):
        session(x=sample())


def test_eight_threads_on_one_session(linear: Path) -> None:
    session = load(linear, threads=1)
    wrong: list[str] = []
    barrier = threading.Barrier(8)

    def hammer(seed: int) -> None:
        barrier.wait()
        for turn in range(40):
            x = sample(1 + (seed + turn) % 8, seed=seed * 100 + turn)
            if not np.allclose(session(x=x)["y"], expected(x), rtol=1e-4, atol=1e-4):
                wrong.append(f"thread {seed}, turn {turn}")

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closing_while_other_threads_run_breaks_no_run(linear: Path) -> None:
    session = load(linear, threads=1)
    started, outcomes = threading.Barrier(5), []

    def hammer() -> None:
        started.wait()
        try:
            while True:
                outcomes.append(
                    np.allclose(session(x=sample())["y"], expected(sample()), atol=1e-4)
                )
        except InputError as error:
            outcomes.append("closed" in error.what)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    session.close()
    for thread in threads:
        thread.join()
    assert len(outcomes) >= 4
    assert all(outcomes)


ARGUMENTS = [
    ({"device": "gpu"}, UnsupportedError, "no variant that this build can run on 'gpu'"),
    ({"device": "tpu"}, UnsupportedError, "there is no device 'tpu'"),
    ({"threads": 0}, InputError, "threads=0 is not a positive integer"),
    ({"threads": -1}, InputError, "threads=-1 is not a positive integer"),
    ({"threads": True}, InputError, "threads=True is not a positive integer"),
    ({"threads": 1.5}, InputError, "threads=1.5 is not a positive integer"),
    ({"threads": "2"}, InputError, "threads='2' is not a positive integer"),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), ARGUMENTS)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], kind: type[LeptonError], message: str, linear: Path
) -> None:
    with pytest.raises(kind, match=message):
        load(linear, **arguments)


@pytest.mark.parametrize("spinning", [True, False])
def test_spinning_is_only_about_speed(spinning: bool, linear: Path) -> None:
    session = load(linear, threads=2, spinning=spinning)
    np.testing.assert_allclose(session(x=sample())["y"], expected(sample()), rtol=1e-5, atol=1e-5)


def damage(path: Path, needle: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(needle) + 3] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_weight_is_found_before_the_engine_sees_anything(
    linear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(linear, linear_weights()["w"].tobytes()[:64])
    monkeypatch.setattr("leptonc.runtime.engines.ort.opening.OrtEngine", None)
    with pytest.raises(IntegrityError, match="section 'weights', chunk 0"):
        load(linear)


def test_without_verification_a_damaged_weight_gives_a_wrong_answer(linear: Path) -> None:
    damage(linear, linear_weights()["w"].tobytes()[:64])
    assert not np.allclose(load(linear, verify=False)(x=sample())["y"], expected(sample()))


def test_a_missing_engine_names_the_command(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_engine(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_engine)
    with pytest.raises(EngineMissingError, match="onnxruntime is not installed") as caught:
        load(linear)
    assert caught.value.fix == "pip install 'leptonc[ort]'"
    assert caught.value.exit_code == 5


def test_a_broken_engine_says_what_is_broken(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def broken(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("libgomp.so.1: cannot open shared object file")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(EngineMissingError, match="cannot be imported: libgomp"):
        load(linear)


def demands(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda variant: variant["demands"].update(changes)


def test_an_older_engine_than_demanded_is_refused(tmp_path: Path) -> None:
    path = linear_with(tmp_path, demands(engine_min="99.1"))
    with pytest.raises(EngineMissingError, match="needs 99.1 or later") as caught:
        load(path)
    assert caught.value.fix == "pip install 'onnxruntime>=99.1'"


@pytest.mark.parametrize(
    ("installed", "accepted"),
    [("1.31.0", True), ("1.31.1+cpu", True), ("1.31", True), ("1.30.9", False), ("2.0.0", True)],
)
def test_engine_versions_compare_as_numbers(installed: str, accepted: bool) -> None:
    engine = SimpleNamespace(__version__=installed)
    variant: Any = SimpleNamespace(demands=SimpleNamespace(engine_min=(1, 31)))
    if accepted:
        ort.check_version(engine, variant, "m.lepton")
        return
    with pytest.raises(EngineMissingError, match=r"1\.30\.9 is installed"):
        ort.check_version(engine, variant, "m.lepton")


def test_a_machine_without_the_demanded_instructions_is_refused_before_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = linear_with(tmp_path, demands(instructions=["avx2000"]))
    monkeypatch.setattr(ort, "import_engine", None)
    with pytest.raises(MachineError, match="CPUs with avx2000") as caught:
        load(path)
    assert "--require native" in str(caught.value)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(("key", "value"), [("backend", "openvino"), ("device", "gpu")])
def test_an_artifact_for_something_else_is_refused(key: str, value: str, tmp_path: Path) -> None:
    path = linear_with(tmp_path, lambda variant: variant.update({key: value}))
    with pytest.raises(
        UnsupportedError, match="no variant that this build can run on 'cpu': it has ort-cpu"
    ):
        load(path)


def test_a_weight_of_another_shape_than_the_graph_uses_is_an_engine_error(tmp_path: Path) -> None:
    path = linear_with(tmp_path, lambda variant: variant["weights"][0].update(shape=[16, 32]))
    with pytest.raises(EngineError, match="ONNX Runtime"):
        load(path)(x=sample())


def test_a_graph_that_is_not_one_is_an_engine_error(tmp_path: Path) -> None:
    path = linear_with(tmp_path, lambda variant: variant.update(graph="weights"))
    with pytest.raises(EngineError, match="ONNX Runtime cannot load the graph") as caught:
        load(path)
    assert caught.value.exit_code == 3


def test_an_engine_that_fails_while_running_names_the_inputs(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[n] x, int64[2] shape) => (float[a, b] y) { y = Reshape(x, shape) }
    """
    sizes = [{"name": name, "min": 0, "max": None} for name in "nab"]
    path = build(
        tmp_path / "m.lepton",
        parse(text),
        [spec("x", "float32", sizes[0]), spec("shape", "int64", 2)],
        [spec("y", "float32", sizes[1], sizes[2])],
        tmp_path,
    )
    session = load(path)
    with pytest.raises(EngineError, match="failed while running") as caught:
        session(x=np.ones(5, np.float32), shape=np.array([2, 3]))
    assert "x [5], shape [2]" in str(caught.value)
    good = session(x=np.ones(6, np.float32), shape=np.array([2, 3]))
    assert good["y"].shape == (2, 3)


TYPES = [
    *("bool", "float16", "float32", "float64"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_dtype_crosses_the_interface(dtype: str, tmp_path: Path) -> None:
    onnx_name = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g ({onnx_name}[2] x, {onnx_name} s) => ({onnx_name}[2] y, {onnx_name} t) {{ y = Identity(x) t = Identity(s) }}
    """
    path = build(
        tmp_path / "m.lepton",
        parse(text),
        [spec("x", dtype, 2), spec("s", dtype)],
        [spec("y", dtype, 2), spec("t", dtype)],
        tmp_path,
    )
    x, s = np.array([1, 0], dtype), np.array(1, dtype)
    outputs = load(path)(x=x, s=s)
    assert outputs["y"].dtype == dtype
    assert outputs["y"].tolist() == x.tolist()
    assert outputs["t"].shape == ()
    assert outputs["t"] == s


@pytest.mark.parametrize("given", [np.array(["a", "bc"]), np.array(["a", "bc"], object)])
def test_text_crosses_the_interface(given: np.ndarray, tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (string[2] x) => (string[2] y) { y = Identity(x) }'
    path = build(
        tmp_path / "m.lepton", parse(text), [spec("x", "str", 2)], [spec("y", "str", 2)], tmp_path
    )
    session = load(path)
    assert session(x=given)["y"].tolist() == ["a", "bc"]
    with pytest.raises(InputError, match="text|contiguous"):
        session.bind({"x": given})


def test_an_artifact_error_is_what_load_raises_for_any_damage(linear: Path) -> None:
    linear.write_bytes(linear.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="the file is truncated"):
        load(linear)
