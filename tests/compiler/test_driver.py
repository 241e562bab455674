"""The whole way: what comes out, that it repeats, and that nothing is left when it fails."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from interruptible import interruptible
from recipes import MLP, write_recipe

from leptonc.compiler.driver import compile_model
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.runtime import load
from leptonc.runtime.errors import EnvironmentProblem

COMPILE = [sys.executable, "-m", "leptonc.compiler.cli", "compile"]


def test_the_artifact_answers_as_the_module_does(tmp_path):
    recipe = write_recipe(tmp_path)
    result = compile_model(CompileSettings(str(recipe), tmp_path / "m.lepton"))
    assert result.bytes == (tmp_path / "m.lepton").stat().st_size
    namespace: dict = {}
    exec(MLP, namespace)  # noqa: S102 - our own text
    module = namespace["build"]().eval()
    x = np.random.default_rng(3).standard_normal((5, 16)).astype(np.float32)
    with load(tmp_path / "m.lepton") as session, torch.no_grad():
        assert str(session.signature.inputs[0].shape[0]) and session.signature.inputs[0].name == "x"
        expected = module(torch.from_numpy(x))["y"].numpy()
        assert np.allclose(session(x=x)["y"], expected, atol=1e-5)


def test_the_manifest_has_the_evidence_and_no_paths(tmp_path):
    recipe = write_recipe(tmp_path)
    result = compile_model(CompileSettings(str(recipe), tmp_path / "m.lepton"))
    evidence = result.manifest["evidence"]
    assert [trial["sizes"]["batch"] for trial in evidence["verification"]["trials"]] == [2, 1, 3]
    assert set(evidence["placement"]["ort-cpu"]) == {"CPUExecutionProvider"}
    assert "torch" in evidence["tools"]
    assert [entry["name"] for entry in result.manifest["passes"]]
    assert str(tmp_path).encode() not in (tmp_path / "m.lepton").read_bytes()


def test_the_bytes_repeat_across_processes_and_folders(tmp_path):
    contents = []
    for name, seed in (("one", "0"), ("another/deeper", "17")):
        recipe = write_recipe(tmp_path / name)
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([*COMPILE, "mlp.py", "-q"], cwd=recipe.parent, env=environment, check=True)
        contents.append((recipe.parent / "mlp.lepton").read_bytes())
    assert contents[0] == contents[1]


def test_an_onnx_file_compiles_and_its_weights_are_found(tmp_path):
    weight = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    model = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 20]>\n'
        "g (float[n, 32] x) => (float[n, 32] y) { h = MatMul (x, w)\n y = Relu (h) }"
    )
    value = next(node for node in model.graph if node.op_type == "MatMul").inputs[1]
    value.const_value = ir.tensor(weight, name="w")
    model.graph.initializers["w"] = value
    ir.save(model, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    compile_model(CompileSettings(str(tmp_path / "m.onnx"), tmp_path / "m.lepton"))
    x = np.ones((3, 32), np.float32)
    with load(tmp_path / "m.lepton") as session:
        assert np.allclose(session(x=x)["y"], np.maximum(x @ weight, 0), atol=1e-4)
        assert session.manifest["source"]["kind"] == "onnx"


def test_onnxsim_can_be_asked_for(tmp_path):
    recipe = write_recipe(tmp_path)
    settings = CompileSettings(str(recipe), tmp_path / "m.lepton", simplify=True)
    assert compile_model(settings).passes[0].name == "simplify"


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")


def test_a_failure_keeps_the_old_artifact(tmp_path):
    recipe = write_recipe(tmp_path)
    (tmp_path / "m.lepton").write_text("the old one")
    broken = write_recipe(tmp_path, MLP.replace("self.second(", "self.third("))
    with pytest.raises(Exception, match="third"):
        compile_model(CompileSettings(str(broken), tmp_path / "m.lepton"))
    assert (tmp_path / "m.lepton").read_text() == "the old one"
    assert leftovers(tmp_path) == ["m.lepton", recipe.name]


SLOW = MLP.replace("def build():", "def build():\n    import time, pathlib\n    STARTED\n").replace(
    "STARTED", "pathlib.Path('started').touch(); [time.sleep(0.05) for _ in range(2000)]"
)


def interrupted(folder: Path, number: int) -> subprocess.CompletedProcess[str]:
    """Start a compile, wait until it is inside build(), and send a signal."""
    write_recipe(folder, SLOW)
    process = subprocess.Popen(
        [*COMPILE, "mlp.py", "-o", "m.lepton"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )
    deadline = time.monotonic() + 60
    while not (folder / "started").exists() and time.monotonic() < deadline:
        select_pause()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, None, err)


def select_pause() -> None:
    import select

    select.select([], [], [], 0.05)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
)
def test_an_interrupted_compile_leaves_nothing(tmp_path, monkeypatch, number, code):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    folder = tmp_path / "work"
    done = interrupted(folder, number)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert leftovers(folder) == ["mlp.py", "started"]
    if number != signal.SIGKILL:
        assert leftovers(scratch) == []


def test_a_limit_on_file_sizes_is_one_clear_error(tmp_path):
    recipe = write_recipe(tmp_path, MLP.replace("64", "2048"))

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [*COMPILE, str(recipe), "-q", "-o", "m.lepton"],
        cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert leftovers(tmp_path) == ["mlp.py"]


def test_a_read_only_folder_is_refused_before_any_work(tmp_path):
    recipe = write_recipe(tmp_path)
    with pytest.raises(EnvironmentProblem, match="cannot be written") as caught:
        compile_model(CompileSettings(str(recipe), Path("/proc/m.lepton")))
    assert caught.value.exit_code == 5
