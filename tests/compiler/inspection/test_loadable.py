"""`leptonc check` and `leptonc verify --record`: the answers, and the files, of finished artifacts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx.parser
import pytest
from acme_engine import ENGINE, acme_artifact
from doubles import without_driver
from plan_artifacts import demands, plan_artifact, real_plan, two_variants
from small_artifacts import build_linear, linear_with

from leptonc.compiler.cli import main
from leptonc.compiler.machines import target_machine
from leptonc.compiler.machines.target_machine import describe_machine, this_machine
from leptonc.compiler.verification.record import read_record, write_record
from leptonc.runtime.artifact.reader import open_artifact
from leptonc.runtime.cuda.driver import Cuda
from leptonc.runtime.engines.loaders import GROUP
from leptonc.runtime.errors import EnvironmentProblem, InputError
from leptonc.runtime.machine import this_system


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_variants(tmp_path_factory.mktemp("both") / "m.lepton")


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = main(["check", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


FITS = ("--sm", "89", "--tensorrt-rtx", "1.7.1.116", "--os", this_system())


@pytest.mark.parametrize(
    ("options", "code", "variant"),
    [
        (FITS, 0, "tensorrt"),
        (("--sm", "8.6", "--tensorrt-rtx", "1.7"), 0, "tensorrt"),
        (("--sm", "89"), 0, "tensorrt"),
        (("--sm", "90"), 4, None),
        (("--sm", "89", "--tensorrt-rtx", "1.6"), 4, None),
        (("--sm", "89", "--tensorrt-rtx", "1.6", "--device", "auto"), 0, "ort-cpu"),
        (("--sm", "none"), 0, "ort-cpu"),
        (("--sm", "none", "--device", "gpu"), 4, None),
        (("--sm", "89", "--os", "windows-x86_64"), 4, None),
        (("--sm", "120", "--variant", "tensorrt"), 4, None),
        (("--sm", "120", "--variant", "ort-cpu"), 0, "ort-cpu"),
        (("--onnxruntime", "1.10", "--sm", "none"), 4, None),
        (("--onnxruntime", "none", "--device", "cpu"), 4, None),
        (("--onnxruntime", "99", "--device", "cpu"), 0, "ort-cpu"),
        (("--tensorrt", "10.9", "--tensorrt-rtx", "none"), 4, None),
    ],
)
def test_a_machine_that_is_described(
    options: tuple[str, ...],
    code: int,
    variant: str | None,
    both: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, answer = ask(capsys, both, *options)
    assert (found, answer["variant"], answer["loads"]) == (code, variant, variant is not None)
    assert answer["machine"]["described"]
    for entry in answer["variants"]:
        assert entry["loads"] == (entry["reasons"] == [])
        assert all(reason["what"] and reason["fix"] for reason in entry["reasons"])


def test_what_the_options_leave_out_is_said(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, answer = ask(capsys, both, "--sm", "89")
    tensorrt, cpu = answer["variants"]
    assert len(tensorrt["not_known"]) == 2
    assert [line.split(":")[0] for line in cpu["not_known"]] == ["version of onnxruntime"]
    assert (tensorrt["asked"], cpu["asked"]) == (True, False)
    _, answer = ask(capsys, both, *FITS)
    assert answer["variants"][0]["not_known"] == []


@without_driver
def test_this_machine(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = ask(capsys, both)
    assert (code, answer["variant"]) == (0, "ort-cpu")
    assert answer["machine"]["os"] == this_system()
    assert answer["machine"]["engines"]["tensorrt-rtx"] == "1.7.1.116"
    [reason] = answer["variants"][0]["reasons"]
    assert "there is no GPU" in reason["what"]
    assert "there is no NVIDIA driver" in reason["what"]
    code, answer = ask(capsys, plan_artifact(tmp_path / "p.lepton"))
    assert (code, answer["variant"]) == (4, None)


def test_people_get_the_same_answer(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(both), "--sm", "90"]) == 4
    text = capsys.readouterr().out
    assert "tensorrt: does not load" in text
    assert "capability 9.0; the plan was built for 8.6 or 8.9" in text
    assert "a load is refused" in text
    assert main(["check", str(both), *FITS]) == 0
    assert "a load uses tensorrt" in capsys.readouterr().out


def test_a_cpu_that_lacks_instructions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = linear_with(tmp_path, lambda entry: entry["demands"].update(instructions=["avx2000"]))
    code, answer = ask(capsys, path)
    assert code == 4
    assert answer["variants"][0]["reasons"][0]["what"] == "the CPU has no avx2000"
    code, answer = ask(capsys, path, "--onnxruntime", "99")
    assert code == 0
    assert "avx2000" in answer["variants"][0]["not_known"][0]


def test_onnxruntime_on_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = linear_with(tmp_path, lambda entry: entry.update(device="gpu", name="ort-cuda"))
    code, answer = ask(capsys, path, "--sm", "89", "--onnxruntime", "99")
    assert (code, answer["variant"]) == (0, "ort-cuda")
    assert any("CUDA provider" in line for line in answer["variants"][0]["not_known"])
    code, answer = ask(capsys, path, "--sm", "none")
    assert code == 4


def test_a_damaged_file_is_an_error_and_no_answer(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = both.read_bytes()
    place = data.index(real_plan("8.6", "8.9")) + 100
    path = tmp_path / "m.lepton"
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    code, answer = ask(capsys, path, *FITS)
    assert (code, answer["error"]["type"]) == (3, "IntegrityError")
    wrong = plan_artifact(
        tmp_path / "w.lepton", demands=demands(compute_capabilities=["8.9", "12.0"])
    )
    code, answer = ask(capsys, wrong, *FITS)
    assert (code, answer["error"]["type"]) == (3, "ArtifactError")


@pytest.mark.parametrize(
    "options",
    [
        ("--sm", "8x"),
        ("--sm", "8"),
        ("--tensorrt-rtx", "latest"),
        ("--os", "Linux"),
        ("--device", "tpu"),
    ],
)
def test_options_that_mean_nothing_are_wrong_usage(
    options: tuple[str, ...], both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, answer = ask(capsys, both, *options)
    assert (code, answer["error"]["exit_code"]) == (2, 2)


def test_a_device_without_a_variant_is_not_supported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, answer = ask(capsys, build_linear(tmp_path), "--sm", "89")
    assert (code, answer["error"]["type"]) == (4, "UnsupportedError")


def test_machines_are_described_in_either_spelling() -> None:
    one = describe_machine(sm="89", system=None, versions={})
    two = describe_machine(sm="8.9", system=None, versions={})
    assert one == two
    assert one.host.capability == "8.9"
    assert describe_machine(sm="120", system=None, versions={}).host.capability == "12.0"


def test_a_machine_without_cuda_python_cannot_load_a_plan(
    both: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda", None)
    assert this_machine().host.capability is None
    _, answer = ask(capsys, both)
    [reason] = answer["variants"][0]["reasons"]
    assert "cuda-bindings" in reason["what"]


def test_a_machine_with_a_gpu(
    both: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(target_machine, "import_cuda", lambda: None)
    monkeypatch.setattr(Cuda, "__init__", lambda self, library: None)
    monkeypatch.setattr(Cuda, "capability", lambda self: "8.9")
    code, answer = ask(capsys, both, "--device", "gpu")
    assert (code, answer["variant"]) == (0, "tensorrt")
    assert answer["machine"]["compute_capability"] == "8.9"


def test_an_engine_of_another_distribution_is_asked_about_the_machine(
    install_plugin: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = acme_artifact(tmp_path / "m.lepton")
    _, answer = ask(capsys, path)
    assert answer["variants"][1]["reasons"] == [
        {"what": "this version has no loader for 'acme'", "fix": "update leptonc"}
    ]
    install_plugin(ENGINE, {"acme-cpu": "ROW"}, group=GROUP, distribution="acme-plugin")
    code, answer = ask(capsys, path, "--variant", "acme")
    assert (code, answer["variant"]) == (0, "acme")
    _, answer = ask(capsys, path, "--sm", "none")
    assert answer["variants"][1]["not_known"] == ["version of acme"]
    newer = acme_artifact(tmp_path / "n.lepton", engine_min="2.1")
    code, answer = ask(capsys, newer, "--variant", "acme")
    assert (code, answer["variants"][0]["reasons"][0]["what"]) == (4, "acme is too old")


def test_an_engine_that_cannot_be_used_is_a_reason(
    install_plugin: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin("raise ImportError", {"acme-cpu": "R"}, group=GROUP, distribution="acme-plugin")
    code, answer = ask(capsys, acme_artifact(tmp_path / "m.lepton"), "--variant", "acme")
    [reason] = answer["variants"][0]["reasons"]
    assert (code, "acme-plugin 1.2.0" in reason["what"]) == (4, True)


# verify --record

MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
small (float[batch, 4] x) => (float[batch, 2] y)
<float[4, 2] w = {1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0}> {
  h = MatMul(x, w)
  y = Relu(h)
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("compiled")
    source = folder / "small.onnx"
    source.write_bytes(onnx.parser.parse_model(MODEL).SerializeToString())
    artifact = folder / "small.lepton"
    assert main(["compile", str(source), "-t", "ort-cpu", "-o", str(artifact), "-q"]) == 0
    return artifact, source


def test_what_verify_found_is_written_and_bound_to_the_artifact(
    compiled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact, source = compiled
    record = tmp_path / "r.json"
    command = ["verify", str(artifact), str(source), "--record", str(record)]
    assert main(command) == 0
    first = record.read_bytes()
    assert main(command) == 0
    assert record.read_bytes() == first
    with open_artifact(artifact, {}) as opened:
        digest = opened.digest
    found = read_record(record, digest)
    assert (found["variant"], found["compared"], found["device"]) == ("ort-cpu", True, "cpu")
    assert found["source"]["same"]
    assert len(found["trials"]) == 3
    assert found["machine"]["os"] == this_system()
    capsys.readouterr()
    code, answer = ask(capsys, artifact, "--record", record)
    assert (code, answer["record"]["artifact"]) == (0, digest)
    assert list(tmp_path.iterdir()) == [record]


def test_a_record_of_another_artifact_is_refused(
    compiled: tuple[Path, Path], both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "r.json"
    assert main(["verify", str(compiled[0]), "--record", str(record)]) == 0
    assert not json.loads(record.read_text())["compared"]
    capsys.readouterr()
    code, answer = ask(capsys, both, "--record", record)
    assert (code, answer["error"]["type"]) == (3, "InputError")
    assert "another artifact" in answer["error"]["what"]


def test_a_source_that_differs_leaves_no_record(
    compiled: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.onnx"
    text = MODEL.replace("{1.0, 0.0,", "{1.5, 0.0,")
    other.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    record = tmp_path / "r.json"
    assert main(["verify", str(compiled[0]), str(other), "--record", str(record)]) == 6
    assert not record.exists()
    assert "fingerprints differ" in capsys.readouterr().err


@without_driver
def test_verify_takes_what_works_here_and_names_the_rest(
    both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(both)]) == 0
    assert "not loaded: tensorrt" in capsys.readouterr().out
    assert main(["verify", str(both), "--variant", "tensorrt"]) == 5
    assert main(["verify", str(both), "--device", "gpu"]) == 5
    assert "no NVIDIA driver" in capsys.readouterr().err


def test_inspect_shows_a_plan(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(both), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [variant["name"] for variant in shown["variants"]] == ["tensorrt", "ort-cpu"]
    assert main(["inspect", str(both)]) == 0
    assert "8.9" in capsys.readouterr().out


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"format":1}', b'{"a": 1}', b"\xff", b"not json"]
)
def test_what_is_no_record_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a record"):
        read_record(path, "digest")
    with pytest.raises(InputError, match="cannot be read"):
        read_record(tmp_path / "absent", "digest")


def test_a_record_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "folder", tmp_path / "absent" / "r.json"):
        with pytest.raises(EnvironmentProblem, match="cannot be written"):
            write_record(place, {"format": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
