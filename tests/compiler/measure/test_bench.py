from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from leptonc.compiler.measure import bench
from leptonc.compiler.measure.bench import run_bench
from leptonc.compiler.measure.cold_start import resident_bytes
from leptonc.compiler.measure.contenders import open_contender, synthesize
from leptonc.runtime.artifact.signature import Dim, Signature, TensorSpec
from leptonc.runtime.errors import EngineError, InputError, LeptonError, UnsupportedError

BATCH = Dim("batch", 1, 8)
LENGTH = Dim("length", 2, 16)
TEXT = Signature(
    (
        TensorSpec("ids", "int64", (BATCH, LENGTH)),
        TensorSpec("mask", "bool", (BATCH, LENGTH)),
        TensorSpec("scale", "float16", (3,)),
        TensorSpec("words", "str", (BATCH,)),
    ),
    (TensorSpec("y", "float32", (BATCH,)),),
)


@pytest.fixture
def one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "STARTS", 1)


def test_an_artifact_and_an_onnx_file_are_measured_in_one_run(
    linear_onnx, linear_artifact, one_start
):
    report = run_bench([linear_onnx, linear_artifact], threads=1, iterations=12, warmup=1)
    assert [row.kind for row in report.rows] == ["onnx", "artifact"]
    assert [row.path for row in report.rows] == [str(linear_onnx), str(linear_artifact)]
    assert report.iterations == 15
    assert report.rows[0].ratio == 1.0
    for row in report.rows:
        assert 0 < row.p50_ms <= row.p90_ms <= row.p99_ms
        assert row.ratio > 0
        assert row.load_ms > 0
        assert row.first_ms > 0
        assert row.per_second > 0
        assert row.resident_bytes is not None
        assert row.private_bytes is not None
        assert 10e6 < row.private_bytes < row.resident_bytes < 1e9


def test_inputs_from_a_file_are_used_as_they_are(linear_artifact, tmp_path, one_start):
    np.savez(tmp_path / "inputs.npz", x=np.ones((5, 64), np.float32))
    report = run_bench([linear_artifact], inputs=tmp_path / "inputs.npz", iterations=1, warmup=0)
    assert report.inputs == {"x": "float32[5, 64]"}
    assert report.synthetic is False


def test_sizes_of_dynamic_dimensions_can_be_chosen(linear_artifact, one_start):
    report = run_bench([linear_artifact], shapes={"batch": 7}, iterations=1, warmup=0)
    assert report.inputs == {"x": "float32[7, 64]"}
    assert report.synthetic is True


def test_made_inputs_fit_the_signature_and_repeat():
    made = synthesize(TEXT, {"length": 5}, seed=3)
    assert {name: (a.dtype.kind, a.shape) for name, a in made.items()} == {
        "ids": ("i", (1, 5)),
        "mask": ("b", (1, 5)),
        "scale": ("f", (3,)),
        "words": ("O", (1,)),
    }
    assert made["mask"].all()
    assert (made["ids"] == 1).all()
    assert made["scale"].dtype == np.float16
    again, other = synthesize(TEXT, {"length": 5}, seed=3), synthesize(TEXT, {"length": 5}, seed=4)
    assert np.array_equal(made["scale"], again["scale"])
    assert not np.array_equal(made["scale"], other["scale"])


def test_dimensions_that_nobody_chose_stay_inside_their_bounds():
    assert synthesize(TEXT, {}, seed=0)["ids"].shape == (1, 16)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 3}, "no input has a dynamic dimension 'width'"),
        ({"length": 17}, "dimension 'length' is 17"),
        ({"batch": 0}, "dimension 'batch' is 0"),
    ],
)
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(InputError, match=message) as caught:
        synthesize(TEXT, sizes, seed=0)
    assert caught.value.fix is not None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.ones((1, 64), np.float32)}, "no input 'z'"),
        (
            {"x": np.ones((1, 64), np.float32), "more": np.ones(1, np.float32)},
            "no input 'more'",
        ),
        ({"x": np.ones((1, 64))}, "float64"),
        ({"x": np.ones((1, 65), np.float32)}, "65"),
        ({"x": np.ones(64, np.float32)}, "rank"),
        ({"x": np.array([{}])}, "not a readable .npz"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    linear_artifact, linear_onnx, tmp_path, arrays, message
):
    np.savez(tmp_path / "inputs.npz", **arrays)
    for path in (linear_artifact, linear_onnx):
        with pytest.raises(InputError, match=message) as caught:
            run_bench([path], inputs=tmp_path / "inputs.npz")
        assert caught.value.exit_code == 3


def test_text_inputs_reach_the_new_process(onnx_file, one_start):
    path = onnx_file("""
        <ir_version: 10, opset_import: ["" : 20]>
        text (string[n] words) => (string[n] same) { same = Identity(words) }
    """)
    report = run_bench([path], iterations=1, warmup=0)
    assert report.rows[0].first_ms > 0


def test_contenders_must_take_the_same_inputs(linear_artifact, onnx_file):
    other = onnx_file("""
        <ir_version: 10, opset_import: ["" : 20]>
        other (float[2] a, float[2] b) => (float[2] c) { c = Add(a, b) }
    """)
    with pytest.raises(InputError, match="its inputs are a, b; those of .* are x"):
        run_bench([linear_artifact, other])


@pytest.mark.parametrize(
    ("name", "data", "error", "message"),
    [
        ("missing.lepton", None, InputError, "no such file"),
        ("missing.onnx", None, InputError, "no such file"),
        ("model.pt", b"x", InputError, "only .lepton artifacts and .onnx files"),
        ("broken.onnx", b"\x08\x0a\x3a\xff", EngineError, "ONNX Runtime cannot load it"),
        ("broken.lepton", b"not one", LeptonError, "not a leptonc artifact"),
    ],
)
def test_files_that_cannot_race_are_refused(tmp_path, name, data, error, message):
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        run_bench([path])
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)


def test_an_input_that_is_not_a_tensor_is_not_supported(onnx_file):
    path = onnx_file("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (seq(float[2]) x) => (int64 n) { n = SequenceLength(x) }
    """)
    with pytest.raises(UnsupportedError, match="seq"):
        open_contender(path, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "0 iterations"),
        ({"warmup": -1}, "-1 warm-up"),
        ({"inputs": "x.npz", "shapes": {"batch": 2}}, "beside an .npz file"),
        ({"threads": 0}, "threads"),
    ],
)
def test_settings_that_make_no_sense_are_refused(linear_artifact, settings, message):
    with pytest.raises(InputError, match=message):
        run_bench([linear_artifact], **settings)


def test_nothing_to_measure_is_refused():
    with pytest.raises(InputError, match="nothing to measure"):
        run_bench([])


def test_a_new_process_that_fails_is_explained(linear_artifact, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(Path("/bin/false")))
    with pytest.raises(EngineError, match="not in a new process"):
        run_bench([linear_artifact], iterations=1, warmup=0)


def test_the_report_is_json_and_a_table(linear_artifact, one_start):
    report = run_bench([linear_artifact], threads=1, iterations=5, warmup=0, seed=9)
    record = json.loads(json.dumps(report.to_json()))
    assert (record["seed"], record["threads"], record["iterations"]) == (9, 1, 5)
    assert set(record["rows"][0]) >= {"p50_ms", "p90_ms", "p99_ms", "per_second", "load_ms"}
    out = io.StringIO()
    report.render(Console(file=out, width=200))
    for expected in ("p50 ms", "p99", "ratio", "load ms", "for speed only", "linear.lepton"):
        assert expected in out.getvalue()


def test_memory_is_read_from_the_kernel(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n")
    assert resident_bytes(status) == {"VmHWM": 2 << 20, "VmRSS": 1 << 20}
    assert resident_bytes(tmp_path / "absent") == {}


def test_a_cold_start_of_an_artifact_imports_the_runtime_alone(linear_artifact, tmp_path):
    np.savez(tmp_path / "inputs.npz", x=np.ones((2, 64), np.float32))
    code = (
        "import sys; from leptonc.compiler.measure.cold_start import main;"
        "main(sys.argv[1], sys.argv[2], 1);"
        "print(sorted({'torch', 'onnx', 'onnx_ir', 'rich', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(linear_artifact), str(tmp_path / "inputs.npz")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    record, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert json.loads(record)["load_s"] > 0
