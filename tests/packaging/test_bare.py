"""The runtime where nothing but NumPy and an engine is installed.

One environment holds the wheel with its `ort` extra. The artifact comes from the compiler in
this environment, so what is shown is the whole promise: compile here, load there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

ABSENT = ("torch", "onnx", "onnx_ir", "onnxscript", "click", "rich", "safetensors")
# Standard library packages that cost milliseconds or start threads, and that nothing needs.
COSTLY = (
    *("asyncio", "concurrent", "ctypes.util", "distutils", "email", "http", "importlib.metadata"),
    *("logging", "multiprocessing", "sqlite3", "ssl", "subprocess", "tempfile"),
    *("unittest", "urllib.request", "uuid", "xml", "zipfile"),
)

MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
small (float[batch, 4] x) => (float[batch, 2] y)
<float[4, 2] w = {1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0}> {
  h = MatMul(x, w)
  y = Relu(h)
}
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    source = folder / "small.onnx"
    source.write_bytes(onnx.parser.parse_model(MODEL).SerializeToString())
    path = folder / "small.lepton"
    script = Path(sys.executable).with_name("leptonc")
    done = subprocess.run(
        [str(script), "compile", str(source), "-t", "ort-cpu", "-o", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return path


def modules_after(bare, statement: str) -> set[str]:
    code = f"import sys; import numpy; before = set(sys.modules); {statement}\n"
    done = bare.python(code + "import json; print(json.dumps(sorted(set(sys.modules) - before)))")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("name", ABSENT)
def test_the_compiler_packages_are_not_there(bare, name):
    done = bare.python(f"import {name}")
    assert done.returncode == 1
    assert f"No module named '{name}'" in done.stderr


def test_an_artifact_runs_with_numpy_and_the_engine(bare, artifact):
    code = """
import json, sys
import numpy as np
from leptonc.runtime import load
session = load(sys.argv[1])
outputs = session(x=np.array([[1, -2, 3, 4], [-1, 0, -1, 0]], np.float32))
print(json.dumps(outputs["y"].tolist()))
print(json.dumps(sorted(name for name in sys.modules if name.startswith("leptonc."))))
"""
    done = bare.python(code, str(artifact))
    assert done.returncode == 0, done.stderr
    answer, modules = map(json.loads, done.stdout.splitlines())
    assert answer == [[4.0, 2.0], [0.0, 0.0]]
    assert {name for name in modules if not f"{name}.".startswith("leptonc.runtime.")} == set()


def test_the_runner_works_from_the_shell(bare, artifact, tmp_path):
    np.savez(tmp_path / "inputs.npz", x=np.ones((3, 4), np.float32))
    done = bare.run(
        *("python", "-m", "leptonc.runtime", str(artifact)),
        *(str(tmp_path / "inputs.npz"), str(tmp_path / "outputs.npz")),
    )
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "outputs.npz")["y"].tolist() == [[2.0, 2.0]] * 3


def test_importing_the_runtime_imports_little(bare):
    added = modules_after(bare, "from leptonc.runtime import Session, Signature, load")
    ours = {name for name in added if name.split(".")[0] == "leptonc"}
    assert "leptonc.runtime.session" in ours
    assert {name for name in ours if not f"{name}.".startswith("leptonc.runtime.")} == {"leptonc"}
    others = {name for name in added - ours if name.split(".")[0] not in sys.stdlib_module_names}
    assert others == set()
    costly = {n for n in added if any(f"{n}.".startswith(f"{each}.") for each in COSTLY)}
    assert costly == set()
    assert len(added) < 40


def test_errors_of_the_runtime_need_no_compiler(bare, tmp_path):
    code = """
import sys
from leptonc.runtime import LeptonError, load
try:
    load(sys.argv[1])
except LeptonError as error:
    print(error.exit_code, error)
"""
    done = bare.python(code, str(tmp_path / "missing.lepton"))
    assert done.stdout.startswith("3 there is no such file"), done.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["compile", "model.py"], ["doctor"], ["run", "a", "b"]]
)
def test_the_console_script_says_which_extra_to_install(bare, arguments):
    done = bare.run("leptonc", *arguments)
    assert done.returncode == 5
    assert done.stdout == ""
    assert "pip install 'leptonc[compile]'" in done.stderr
    assert "Traceback" not in done.stderr
