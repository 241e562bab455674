"""The runtime in a process of its own: what it imports, what it prints, how it exits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_artifacts import expected, linear_with, sample

import leptonc.runtime

PURE = """
import sys
import numpy
before = set(sys.modules)
import leptonc.runtime
from leptonc.runtime import Dim, LeptonError, Session, Signature, TensorSpec, load
ours = {name for name in sys.modules if name.startswith("leptonc")}
assert all(n == "leptonc" or n.split(".")[1] == "runtime" for n in ours), ours
new = {name.partition(".")[0] for name in set(sys.modules) - before} - {"leptonc"}
print(sorted(name for name in new if name not in sys.stdlib_module_names))
print(sorted(new & {"asyncio", "logging", "concurrent", "ctypes", "subprocess", "onnxruntime"}))
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_importing_the_runtime_imports_numpy_and_the_standard_library_alone() -> None:
    done = run_python("-c", PURE)
    assert done.stderr == ""
    assert done.stdout == "[]\n[]\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Tensor'"):
        leptonc.runtime.Tensor  # noqa: B018 - the access itself is under test


def test_loading_prints_nothing(linear: Path) -> None:
    script = f"""
import numpy
from leptonc.runtime import load
load({str(linear)!r})(x=numpy.ones((2, 32), numpy.float32))
"""
    done = run_python("-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_engine_failures_print_nothing_of_their_own(tmp_path: Path) -> None:
    path = linear_with(tmp_path, lambda variant: variant.update(graph="weights"))
    script = f"""
from leptonc.runtime import EngineError, load
try:
    load({str(path)!r})
except EngineError:
    print("refused")
"""
    done = run_python("-c", script)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_the_module_runs_pairs_of_files(linear: Path, tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("a.npz", "b.npz", "c.npz", "d.npz")]
    np.savez(names[0], x=sample(2, seed=1))
    np.savez(names[2], x=sample(5, seed=2))
    done = run_python("-m", "leptonc.runtime", str(linear), *names)
    assert (done.returncode, done.stderr) == (0, "")
    for name, rows, seed in ((names[1], 2, 1), (names[3], 5, 2)):
        np.testing.assert_allclose(
            np.load(name)["y"], expected(sample(rows, seed)), rtol=1e-5, atol=1e-5
        )


FAILURES = [
    (["model", "inputs"], 2, "usage: python -m leptonc.runtime"),
    (["missing", "inputs", "outputs"], 3, "there is no such file"),
    (["model", "missing", "outputs"], 3, "there is no such file\n  where: {folder}/missing"),
    (["model", "model", "outputs"], 3, "not a readable .npz file"),
    (["model", "wrong", "outputs"], 3, "there is no input 'z'"),
    (["model", "inputs", "folder/outputs"], 5, "the arrays cannot be written"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), FAILURES)
def test_the_module_explains_failures_without_a_traceback(
    arguments: list[str], code: int, message: str, linear: Path, tmp_path: Path
) -> None:
    shutil.copy(linear, tmp_path / "model")
    np.savez(tmp_path / "inputs", x=sample())
    np.savez(tmp_path / "wrong", z=sample())
    for name in ("inputs", "wrong"):
        (tmp_path / f"{name}.npz").rename(tmp_path / name)
    before = sorted(tmp_path.iterdir())
    done = run_python("-m", "leptonc.runtime", *(str(tmp_path / name) for name in arguments))
    assert done.returncode == code
    assert message.format(folder=tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_importing_the_engine_opens_no_telemetry(tmp_path):
    program = "from leptonc.runtime.engines.ort.library import import_engine; import_engine()"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []
