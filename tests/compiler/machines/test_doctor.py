from __future__ import annotations

import io
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console

from leptonc.backends.rows import BACKENDS, PLANNED_TARGETS
from leptonc.compiler.machines import doctor
from leptonc.runtime.errors import EnvironmentProblem

CPUINFO = """processor\t: 0
model name\t: Some CPU
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_tile
processor\t: 1
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_tile
"""


class Installed:
    """Package metadata of a machine that has only what `versions` lists."""

    version = "9.8.7"
    requires = (
        "numpy>=1.26",
        'onnxruntime>=1.23; extra == "ort"',
        'onnxruntime-gpu>=1.23; extra == "gpu"',
        'torch>=2.9; extra == "compile"',
        'onnx-ir<1.2,>=1.1; extra == "compile"',
    )

    def __init__(self, monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
        def version(name: str) -> str:
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(metadata, "distribution", lambda name: self)
        monkeypatch.setattr(metadata, "version", version)


def capability(diagnosis: doctor.Diagnosis, name: str) -> doctor.Capability:
    return next(item for item in diagnosis.capabilities if item.name == name)


def test_everything_that_setup_installs_is_found_here():
    diagnosis = doctor.diagnose()
    by_extra = {
        extra: [p for p in diagnosis.packages if p.extra == extra] for extra in ("", "compile")
    }
    assert [p.name for p in by_extra[""]] == ["numpy"]
    assert {"torch", "onnx", "onnx-ir", "click", "rich"} <= {p.name for p in by_extra["compile"]}
    assert all(p.ok for packages in by_extra.values() for p in packages)
    assert capability(diagnosis, "ort-cpu").state == "ready"
    assert capability(diagnosis, "compile").state == "ready"
    assert diagnosis.leptonc == metadata.version("leptonc")


def test_every_target_of_ours_is_there_in_order():
    names = [found.name for found in doctor.diagnose().capabilities]
    built = [target.name for row in BACKENDS for target in row.targets]
    assert names == ["compile", *built, *PLANNED_TARGETS]


@pytest.mark.parametrize("target", PLANNED_TARGETS)
def test_targets_without_a_backend_are_said_to_be_unsupported(target: str):
    found = capability(doctor.diagnose(), target)
    assert (found.state, found.command) == ("unsupported", None)
    assert "no backend" in found.detail


def test_a_missing_engine_names_the_pip_command(monkeypatch: pytest.MonkeyPatch):
    Installed(monkeypatch, {"numpy": "2.0.0"})
    diagnosis = doctor.diagnose()
    ort = capability(diagnosis, "ort-cpu")
    assert ort.state == "missing"
    assert ort.command == "pip install 'leptonc[ort]'"
    assert ort.detail == "onnxruntime is missing"
    compile_ = capability(diagnosis, "compile")
    assert compile_.command == "pip install 'leptonc[compile]'"
    assert compile_.detail == "torch is missing, onnx-ir is missing"


def test_a_version_outside_the_bounds_is_named_with_the_bound(monkeypatch: pytest.MonkeyPatch):
    Installed(monkeypatch, {"numpy": "2.0.0", "torch": "2.9.1+cpu", "onnx-ir": "1.2.0"})
    found = capability(doctor.diagnose(), "compile")
    assert found.state == "missing"
    assert found.detail == "onnx-ir 1.2.0 is not <1.2,>=1.1"


def test_the_gpu_build_of_onnxruntime_runs_the_cpu_target(monkeypatch: pytest.MonkeyPatch):
    Installed(monkeypatch, {"numpy": "2.0.0", "onnxruntime-gpu": "1.31.1"})
    assert capability(doctor.diagnose(), "ort-cpu").state == "ready"


@pytest.mark.parametrize(("driver", "state"), [(True, "ready"), (False, "missing")])
def test_a_gpu_target_needs_a_driver(monkeypatch: pytest.MonkeyPatch, driver: bool, state: str):
    Installed(monkeypatch, {"numpy": "2.0.0", "onnxruntime-gpu": "1.31.1"})
    monkeypatch.setattr(doctor, "has_driver", lambda: driver)
    found = capability(doctor.diagnose(), "ort-cuda")
    assert found.state == state
    assert driver or "no NVIDIA driver" in found.detail


def test_a_gpu_target_names_its_extra(monkeypatch: pytest.MonkeyPatch):
    Installed(monkeypatch, {"numpy": "2.0.0"})
    assert capability(doctor.diagnose(), "ort-cuda").command == "pip install 'leptonc[gpu]'"


def test_running_from_an_uninstalled_folder_is_explained(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(EnvironmentProblem, match="not installed as a package") as caught:
        doctor.diagnose()
    assert caught.value.exit_code == 5
    assert "make setup" in str(caught.value)


@pytest.mark.parametrize(
    ("version", "specifier", "inside"),
    [
        ("1.1.0", ">=1.1,<1.2", True),
        ("1.2", ">=1.1,<1.2", False),
        ("1.1.9", "<1.2,>=1.1", True),
        ("1.0.9", ">=1.1", False),
        ("1.10.0", ">=1.9", True),
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.13.1", "==2.13.0", False),
        ("5.0", "==5", True),
        ("1.7.1.116", "==1.7.1.116", True),
        ("3.1.0rc1", ">=3", True),
        ("0.1", "", True),
    ],
)
def test_versions_are_compared_by_number(version: str, specifier: str, inside: bool):
    assert doctor.satisfies(version, specifier) is inside


def test_every_specifier_of_the_package_is_understood():
    text = " ".join(metadata.distribution("leptonc").requires or ())
    for operator in ("~=", "!=", "===", "<="):
        assert operator not in text


def test_instruction_sets_come_from_cpuinfo(tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(CPUINFO)
    machine = doctor.inspect_machine(cpuinfo)
    assert machine.instructions == ("avx2", "avx512f", "avx512_vnni")
    assert machine.cores >= 1


def test_json_round_trips_and_holds_what_is_printed():
    diagnosis = doctor.diagnose()
    record = json.loads(json.dumps(diagnosis.to_json()))
    assert sorted(record) == ["capabilities", "leptonc", "machine", "packages", "plugins"]
    assert record["capabilities"][0].keys() == {"name", "state", "detail", "command"}
    assert record["machine"]["cores"] == diagnosis.machine.cores


def test_printed_commands_keep_their_brackets(monkeypatch: pytest.MonkeyPatch):
    Installed(monkeypatch, {"numpy": "2.0.0"})
    out = io.StringIO()
    doctor.diagnose().render(Console(file=out, width=200))
    assert "pip install 'leptonc[ort]'" in out.getvalue()
    assert "pip install 'leptonc[compile]'" in out.getvalue()
    assert "torch" in out.getvalue()


def test_the_doctor_imports_no_engine_and_no_compiler_package():
    code = (
        "import sys; from leptonc.compiler.machines.doctor import diagnose; diagnose();"
        "print(sorted({'torch', 'onnx', 'onnx_ir', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
