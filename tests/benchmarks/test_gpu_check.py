"""`make gpu-check` on a machine without a GPU: it says what is missing, and writes its file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Scripts of benchmarks/ import their neighbours by bare name.
sys.path.append(str(ROOT / "benchmarks"))

import gpu_check  # noqa: E402
from gpu_check import Check, Outcome, Runner, checks, exit_status  # noqa: E402
from gpu_survey import Part, Survey, survey  # noqa: E402


def machine(*there: str, sm: str = "8.6") -> Survey:
    names = ("gpu", "torch", "leptonc", "onnxruntime-cuda", "tensorrt-rtx", "tensorrt", "pytest")
    return Survey(
        {
            name: Part(name, {"version": "1", "sm": sm})
            if name in there
            else Part(name, None, "not here", "get it")
            for name in names
        }
    )


def test_without_a_gpu_everything_is_listed_as_not_run(tmp_path: Path) -> None:
    path = tmp_path / "check.json"
    command = [sys.executable, "benchmarks/gpu_check.py", "-o", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "found: gpu" in done.stdout:
        pytest.skip("there is a GPU: make gpu-check runs the checks themselves")
    assert done.returncode == gpu_check.NO_GPU == 5
    assert done.stdout.startswith("missing: gpu: ")
    record = json.loads(path.read_text())
    assert [entry["name"] for entry in record["checks"]] == [check.name for check in checks()]
    assert {entry["status"] for entry in record["checks"]} == {"not run"}
    assert all(entry["why"].startswith("gpu: ") for entry in record["checks"])
    assert record["machine"]["leptonc"]["found"]["version"]
    assert list(tmp_path.iterdir()) == [path]


def test_every_engine_and_precision_is_checked() -> None:
    found = list(checks(["minilm"]))
    numerics = {(c.engine, c.precision) for c in found if c.kind == "numerics"}
    assert len(numerics) == 9 + 4
    assert [c.kind for c in found].count("latency") == 3
    assert found[-1].kind == "tests"
    assert len({c.name for c in found}) == len(found)


def test_what_can_run_does_and_the_rest_says_why(tmp_path: Path) -> None:
    runner = Runner(machine("gpu", "torch"), tmp_path)
    waiting = [c for c in checks(["minilm"]) if c.kind != "latency"]
    outcomes = [runner.run(check) for check in waiting]
    assert {outcome.why for outcome in outcomes} == {"leptonc: not here"}


def test_a_check_that_the_machine_cannot_do_is_not_passed(tmp_path: Path) -> None:
    """A survey that promises more than there is: the compile goes on, and the proof does not."""
    runner = Runner(machine("gpu", "leptonc", "onnxruntime-cuda"), tmp_path)
    check = next(c for c in checks(["digits_cnn"]) if c.engine == "ort-cuda")
    outcome = runner.run(check)
    assert outcome.status == "not run"
    assert "without its CUDA provider" in str(outcome.why)


def test_the_exit_status_tells_a_failure_from_nothing_to_run() -> None:
    check = Check("tests", "tests/gpu", ())
    passed, failed = Outcome(check, "passed"), Outcome(check, "failed", "wrong")
    assert exit_status([passed], machine("gpu")) == 0
    assert exit_status([passed, failed], machine("gpu")) == 1
    assert exit_status([Outcome(check, "not run", "no")], machine()) == 5


def test_a_library_that_crashes_is_a_line_of_the_survey() -> None:
    questions = {
        "crash": ("import os; os.kill(os.getpid(), 11)", "another build"),
        "absent": ("import nothing_of_that_name", "pip install it"),
        "wrong": ("assert False, 'finds no GPU'", "a GPU"),
        "there": ("print('noise'); print('{\"version\": \"1\"}')", ""),
    }
    parts = survey(questions).parts
    assert parts["crash"].missing == "was killed by signal 11"
    assert parts["absent"].missing == "No module named 'nothing_of_that_name'"
    assert parts["wrong"].missing == "finds no GPU"
    assert parts["there"].found == {"version": "1"}
