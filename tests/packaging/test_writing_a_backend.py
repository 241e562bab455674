"""The page on writing a backend: its package is built, installed and used as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from leptonc.backends import TargetRow
from leptonc.backends.plugins import GROUP
from leptonc.passes import TARGETS
from leptonc.runtime.engines import loaders

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "writing-a-backend.md").read_text(encoding="utf-8")
LEPTONC = str(Path(sys.executable).with_name("leptonc"))
# Not said on the page: what concerns engines of leptonc's own alone.
OWN = {"timed"}

SIGMOID = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return torch.sigmoid(x @ x)

def build():
    return Net()

def example_inputs():
    return {"x": torch.ones(3, 3)}
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Installed:
    """The page's package where pip put it, and its other files beside one another."""

    site: Path
    folder: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": self.path, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def path(self) -> str:
        return os.pathsep.join(filter(None, (str(self.site), os.environ.get("PYTHONPATH"))))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    (project,) = blocks("toml")
    row, backend, engine, recipe, service = blocks("python")
    package = tmp_path_factory.mktemp("acme-tiny")
    (package / "acme_tiny").mkdir()
    for name, text in {
        "pyproject.toml": project,
        "acme_tiny/__init__.py": "",
        "acme_tiny/row.py": row,
        "acme_tiny/backend.py": backend,
        "acme_tiny/engine.py": engine,
    }.items():
        (package / name).write_text(text)
    found = Installed(tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work"))
    for name, text in {"scores.py": recipe, "service.py": service, "net.py": SIGMOID}.items():
        (found.folder / name).write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    # Without isolation and dependencies, so that no index is needed.
    offline = ["--no-build-isolation", "--no-deps", "--no-index"]
    done = found.run(*pip, *offline, "--target", str(found.site), str(package))
    assert done.returncode == 0, done.stderr
    return found


@pytest.fixture(scope="module")
def compiled(installed: Installed) -> dict[str, object]:
    done = installed.run(LEPTONC, "compile", "scores.py", "-t", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_doctor_lists_it(installed):
    done = installed.run(LEPTONC, "doctor", "--json")
    said = json.loads(done.stdout)
    (target,) = (each for each in said["capabilities"] if each["name"] == "tiny")
    assert target["state"] == "ready"
    assert target["detail"].startswith("acme-tiny 1.0.0, leptonc ")
    references = {each["reference"] for each in said["plugins"]}
    assert references == {"acme_tiny.row:ROW", "acme_tiny.engine:ROW"}


def test_what_it_builds_is_proven(compiled):
    (variant,) = compiled["variants"]
    assert (variant["name"], variant["backend"], variant["device"]) == ("tiny", "tiny", "cpu")
    assert compiled["verification"]["verified"] is True


def test_a_service_loads_it_and_imports_nothing_of_the_compiler(installed, compiled):
    shown = "import runpy, sys; runpy.run_path('service.py'); "
    absent = (
        "print(sorted({'onnx_ir', 'onnxruntime', 'torch', 'acme_tiny.row'} & set(sys.modules)))"
    )
    done = installed.run(sys.executable, "-c", shown + absent)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("tiny {")
    assert last == "[]"


def test_the_check_answers(installed, compiled):
    done = installed.run(LEPTONC, "check", "scores.lepton")
    assert done.returncode == 0, done.stderr
    assert "tiny: loads" in done.stdout
    assert "a load uses tiny" in done.stdout
    done = installed.run(LEPTONC, "check", "scores.lepton", "--os", "linux-x86_64")
    assert "not known: version of tiny" in done.stdout


def test_it_stands_beside_another_target_in_one_file(installed):
    both = ("-t", "tiny", "-t", "ort-cpu", "-o", "both.lepton", "--json")
    done = installed.run(LEPTONC, "compile", "scores.py", *both)
    assert done.returncode == 0, done.stderr
    assert [each["name"] for each in json.loads(done.stdout)["variants"]] == ["tiny", "ort-cpu"]
    done = installed.run(LEPTONC, "inspect", "both.lepton", "--json")
    assert done.returncode == 0, done.stderr


def test_an_operator_that_it_lacks_is_refused_by_name_and_line(installed):
    done = installed.run(LEPTONC, "compile", "net.py", "-t", "tiny")
    assert done.returncode == 4
    assert "tiny does not take Sigmoid" in done.stderr
    assert "net.py:6" in done.stderr
    done = installed.run(LEPTONC, "compile", "net.py", "-t", "tiny", "--dry-run", "--json")
    assert done.returncode == 4
    (target,) = json.loads(done.stdout)["targets"]
    assert [node["operator"] for node in target["uncovered"]] == ["Sigmoid"]


def test_a_precision_that_it_lacks_is_refused_with_its_own_advice(installed):
    done = installed.run(LEPTONC, "compile", "scores.py", "-t", "tiny", "-p", "fp16")
    assert done.returncode == 4
    assert "tiny does not compute in fp16" in done.stderr
    assert "use -p fp32" in done.stderr


def test_every_platform_group_and_field_is_on_the_page():
    assert all(f"`{name}`" in PAGE for name in (*TARGETS, GROUP, loaders.GROUP))
    assert all(
        f"| `{field.name}` |" in PAGE for field in fields(TargetRow) if field.name not in OWN
    )
