"""The public faces: what docs/python-api.md shows runs, and every name has its documentation."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "python-api.md").read_text(encoding="utf-8")
FACES = ("compiler", "backends", "passes", "passes.rewriting", "runtime")
MODEL = """
import torch


def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))


def example_inputs():
    return {"x": torch.linspace(-1, 1, 16).reshape(2, 8)}


def calibration_data():
    generator = torch.Generator().manual_seed(1)
    for _ in range(8):
        yield {"x": torch.randn(2, 8, generator=generator)}
"""


def test_what_the_page_shows_runs_in_one_program(tmp_path: Path) -> None:
    model = MODEL.replace("torch.nn.Sequential(", "Net(").replace(
        "\n\ndef build", "\n\nclass Net(torch.nn.Sequential):\n    def forward(self, x):\n"
        '        return {"output": super().forward(x)}\n\n\ndef build', 1
    )  # fmt: skip
    (tmp_path / "model.py").write_text(model)
    program = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].endswith(" True") and said[1].startswith("8 ")
    assert said[-1] == "['clean']" and said[-2] == "(2, 2)"
    assert {path.name for path in tmp_path.glob("*.*")} >= {"model.lepton", "small.lepton"}


@pytest.mark.parametrize("face", FACES)
def test_every_public_name_is_there_and_documented(face: str) -> None:
    module = importlib.import_module(f"leptonc.{face}")
    assert module.__all__
    for name in module.__all__:
        found = getattr(module, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            assert (inspect.getdoc(found) or "").strip(), name
    with pytest.raises((AttributeError, ImportError)):
        _ = module.nothing_of_this_name


@pytest.mark.parametrize("name", importlib.import_module("leptonc.compiler").__all__)
def test_the_page_names_what_the_compiler_offers(name: str) -> None:
    assert f"`{name}" in PAGE
    found = getattr(importlib.import_module("leptonc.compiler"), name)
    if name.endswith("Settings") or name.endswith("Result"):
        documented = inspect.getdoc(found) or ""
        assert all(f"\n    {field}: " in documented for field in found.__dataclass_fields__)
