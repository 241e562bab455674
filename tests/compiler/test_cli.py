"""Every verb as a user calls it, and every exit code provoked."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest
from recipes import MLP, write_recipe

from leptonc.compiler import cli, driver, rewriting
from leptonc.compiler.cli import main
from leptonc.passes.errors import PassError
from leptonc.runtime import load


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    recipe = write_recipe(folder)
    assert main(["compile", str(recipe), "-q", "-o", str(folder / "mlp.lepton")]) == 0
    return folder / "mlp.lepton"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_compile_echoes_settings_shows_stages_and_proves(tmp_path, capfd):
    recipe = write_recipe(tmp_path)
    code = main(["compile", str(recipe), "-t", "ort-cpu", "-o", str(tmp_path / "m.lepton")])
    out, err = capfd.readouterr()
    assert code == 0
    assert "source     " + str(recipe) in err
    assert "precision  fp32" in err
    for stage in ("load the source", "export to ONNX", "build for ort-cpu", "prove it"):
        assert stage in err
    assert "chatter" not in out + err
    assert "SQNR" in out and "batch=2" in out
    assert f"{(tmp_path / 'm.lepton').stat().st_size:,} bytes, ort-cpu" in out
    assert names(tmp_path) == ["__pycache__", "m.lepton", "mlp.py"] or names(tmp_path) == [
        "m.lepton",
        "mlp.py",
    ]


def test_compile_prints_one_json_object(tmp_path, capfd):
    recipe = write_recipe(tmp_path)
    assert main(["compile", str(recipe), "--json", "-o", str(tmp_path / "m.lepton")]) == 0
    out, err = capfd.readouterr()
    answer = json.loads(out)
    assert err == ""
    assert answer["artifact"] == str(tmp_path / "m.lepton")
    assert answer["bytes"] == (tmp_path / "m.lepton").stat().st_size
    assert [variant["name"] for variant in answer["variants"]] == ["ort-cpu"]
    assert answer["verification"]["verified"] is True
    assert len(answer["verification"]["trials"]) == 3
    steps = {stage["name"]: stage["seconds"] for stage in answer["stages"]}
    assert {"load", "reference", "export", "optimize", "build", "write", "verify"} <= steps.keys()
    assert all(seconds >= 0 for seconds in steps.values())


def test_the_default_output_is_named_after_the_source(tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    assert main(["compile", str(recipe), "-q", "--no-verify"]) == 0
    with load(tmp_path / "mlp.lepton") as session:
        verification = session.manifest["evidence"]["verification"]
    assert verification == {"verified": False, "reason": "switched off with --no-verify"}


def test_run_reads_and_writes_npz(compiled, tmp_path, capfd):
    x = np.ones((3, 16), np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    code = main(["run", str(compiled), str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz")])
    assert code == 0
    assert "y: float32 [3, 8]" in capfd.readouterr().out
    with load(compiled) as session:
        assert np.array_equal(np.load(tmp_path / "y.npz")["y"], session(x=x)["y"])


def test_inspect_and_bench_and_doctor_answer_in_json(compiled, capfd):
    for arguments in (
        ["inspect", str(compiled), "--json"],
        ["bench", str(compiled), "--iterations", "5", "--size", "batch=2", "--json"],
        ["doctor", "--json"],
    ):
        assert main(arguments) == 0, arguments
        assert isinstance(json.loads(capfd.readouterr().out), dict)
        assert main([argument for argument in arguments if argument != "--json"]) == 0
        assert capfd.readouterr().out.strip()


def test_verify_checks_hashes_and_with_a_source_the_answers(compiled, capfd):
    assert main(["verify", str(compiled)]) == 0
    out = capfd.readouterr().out
    assert "every hash is right" in out and "not compared" in out
    recipe = compiled.parent / "mlp.py"
    assert main(["verify", str(compiled), str(recipe), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["compared"] is True and answer["same_source"] is True
    assert len(answer["trials"]) == 3


def test_verify_against_another_model_is_exit_6(compiled, tmp_path, capfd):
    other = write_recipe(tmp_path, MLP.replace("manual_seed(0)", "manual_seed(1)"))
    assert main(["verify", str(compiled), str(other)]) == 6
    err = capfd.readouterr().err
    assert "output 'y'" in err and "SQNR" in err


def test_exit_0_for_help_and_version(capfd):
    assert main(["--help"]) == 0
    assert "Exit codes" in capfd.readouterr().out
    assert main(["--version"]) == 0
    for verb in ("compile", "verify", "inspect", "run", "bench", "doctor"):
        assert main([verb, "--help"]) == 0


def test_exit_1_is_a_bug_and_says_so(tmp_path, monkeypatch, capfd):
    def broken(*arguments, **options):
        raise RuntimeError("surprise")

    monkeypatch.setattr(driver, "compile_model", broken)
    recipe = write_recipe(tmp_path)
    assert main(["compile", str(recipe), "-o", str(tmp_path / "m.lepton")]) == 1
    err = capfd.readouterr().err
    assert "bug in leptonc: RuntimeError: surprise" in err
    assert "Traceback" not in err
    assert main(["compile", str(recipe), "-o", str(tmp_path / "m.lepton"), "--debug"]) == 1
    assert "Traceback" in capfd.readouterr().err


def test_exit_1_when_a_pass_breaks_the_graph(tmp_path, monkeypatch, capfd):
    def broken(model, **_):
        raise PassError("the pass 'fold' left a dangling input", where="node 'x'")

    monkeypatch.setattr(rewriting, "optimize", broken)
    recipe = write_recipe(tmp_path)
    assert main(["compile", str(recipe), "-q", "-o", str(tmp_path / "m.lepton")]) == 1
    assert "the pass 'fold'" in capfd.readouterr().err
    assert "m.lepton" not in names(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["compile"],
        ["compile", "m.py", "-p", "fp31"],
        ["compile", "m.py", "--opset", "3"],
        ["compile", "m.py", "--tolerance", "high"],
        ["compile", "m.py", "--gate", "speed=3"],
        ["compile", "m.py", "--gate", "size=3 parsecs"],
        ["run", "m.lepton"],
        ["bench"],
        ["bench", "m.lepton", "--size", "batch"],
    ],
)
def test_exit_2_is_wrong_usage(arguments, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert "Traceback" not in capfd.readouterr().err
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile", "missing.py"], "no such file"),
        (["compile", "weights.pt"], "a pickle is a program"),
        (["compile", "empty.py"], "the recipe has no build()"),
        (["compile", "prose.onnx"], "not a valid ONNX model"),
        (["inspect", "missing.lepton"], "missing.lepton"),
        (["inspect", "prose.lepton"], "prose.lepton"),
        (["verify", "prose.lepton"], "prose.lepton"),
        (["run", "prose.lepton", "x.npz", "-o", "y.npz"], "x.npz"),
        (["bench", "prose.lepton"], "prose.lepton"),
        (["bench", "missing.onnx"], "missing.onnx"),
    ],
)
def test_exit_3_is_bad_input(arguments, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.py").write_text("")
    for name in ("prose.onnx", "prose.lepton", "weights.pt"):
        (tmp_path / name).write_text("this is prose, and nothing else\n" * 20)
    before = names(tmp_path)
    assert main(arguments) == 3
    err = capfd.readouterr().err
    assert message in err and "leptonc: " in err
    assert "Traceback" not in err
    assert [name for name in names(tmp_path) if name != "__pycache__"] == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-t", "ort-cuda", "-p", "int8"], "int8"),
        (["-t", "tensorrt-gpu"], "tensorrt"),
        (["-t", "ort-gpu"], "gpu"),
        (["-p", "fp16"], "few float16 kernels on a CPU"),
        (["-p", "bf16"], "no bfloat16 kernels on a CPU"),
        (["-t", "ort-cuda", "--require", "native"], "does not depend on the CPU"),
        (["-t", "openvino"], "does not build for 'openvino' yet"),
        (["-t", "tensorrt", "--sm", "90"], "--sm 90: TensorRT for RTX builds for 75, 80"),
        (["-t", "tensorrt", "--flavour", "rtx", "--strip-weights"], "--strip-weights"),
        (["-t", "tensorrt", "-p", "int4", "--sm", "75"], "7.5 has no 4 bit integers"),
        (["-t", "nonsense"], "nonsense"),
    ],
)
def test_exit_4_is_not_supported(options, message, tmp_path, capfd):
    recipe = write_recipe(tmp_path)
    assert main(["compile", str(recipe), "-q", "-o", str(tmp_path / "m.lepton"), *options]) == 4
    assert message in capfd.readouterr().err
    assert "m.lepton" not in names(tmp_path)


def test_exit_5_without_click_says_what_to_install(monkeypatch, capfd):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert main(["doctor"]) == 5
    err = capfd.readouterr().err
    assert "pip install 'leptonc[compile]'" in err


def test_exit_5_for_a_folder_that_does_not_exist(tmp_path, capfd):
    recipe = write_recipe(tmp_path)
    assert main(["compile", str(recipe), "-q", "-o", str(tmp_path / "no" / "m.lepton")]) == 5
    assert "fix:" in capfd.readouterr().err


def test_exit_6_when_a_rewrite_changes_the_answer(tmp_path, monkeypatch, capfd):
    optimize = rewriting.optimize

    def wrong(model, **options):
        stats = optimize(model, **options)
        relu = next(node for node in model.graph if node.op_type == "FusedGemm")
        relu.attributes["activation"] = ir.AttrString("activation", "Tanh")
        relu.metadata_props["leptonc.pass"] = "clean"
        return stats

    monkeypatch.setattr(rewriting, "optimize", wrong)
    recipe = write_recipe(tmp_path)
    assert main(["compile", str(recipe), "-q", "-o", str(tmp_path / "m.lepton")]) == 6
    err = capfd.readouterr().err
    assert "FusedGemm node" in err and "last changed by clean" in err
    assert "mlp.py" in err and "torch.relu" in err
    assert "m.lepton" not in names(tmp_path)


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("size=1kB", "size is"),
        ("latency=0.000001ms", "latency is"),
        ("load=0.001ms", "load is"),
        ("sqnr=900dB", "sqnr is"),
    ],
)
def test_exit_7_when_a_gate_is_breached(gate, message, tmp_path, capfd):
    recipe = write_recipe(tmp_path)
    output = tmp_path / "m.lepton"
    assert main(["compile", str(recipe), "-q", "-o", str(output), "--gate", gate]) == 7
    err = capfd.readouterr().err
    assert message in err and gate in err
    assert not output.exists()


def test_gates_that_are_kept_change_nothing(tmp_path):
    recipe = write_recipe(tmp_path)
    gates = ["--gate", "size=1GB", "--gate", "load=1000s", "--gate", "latency=1000s"]
    output = tmp_path / "m.lepton"
    assert (
        main(["compile", str(recipe), "-q", "-o", str(output), *gates, "--gate", "sqnr=60dB"]) == 0
    )
    assert output.exists()


def test_an_error_in_json_is_one_object(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["compile", "missing.py", "--json"]) == 3
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["exit_code"] == 3
    assert error["where"] == "missing.py"


def test_the_reader_of_the_output_may_go_away(compiled):
    command = f"{sys.executable} -m leptonc.compiler.cli inspect {compiled} --json | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_no_color_codes_where_there_is_no_terminal(compiled):
    command = [sys.executable, "-m", "leptonc.compiler.cli", "inspect", str(compiled)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    assert "\x1b[" not in done.stdout


def test_wrong_usage_in_json_is_one_object(capfd):
    assert main(["compile", "m.py", "--frob", "--json"]) == 2
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["exit_code"] == 2 and "--frob" in error["what"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_survived(compiled, closed):
    command = f"{sys.executable} -m leptonc.compiler.cli inspect {compiled} {closed}"
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 0


def test_a_full_standard_output_is_one_message(compiled):
    command = f"{sys.executable} -m leptonc.compiler.cli inspect {compiled} --json >/dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "No space left" in done.stderr and "Traceback" not in done.stderr
