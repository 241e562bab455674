"""Compiles in half the width: proven on the graph where there is no GPU, and said so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leptonc.compiler.cli import main
from leptonc.compiler.settings.resolve import resolve_settings
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.runtime.artifact.reader import open_artifact

RECIPE = """\
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Linear(64, 64)
        self.norm = torch.nn.LayerNorm(64)
        self.outer = torch.nn.Linear(64, 32)
        {extra}

    def forward(self, x):
        hidden = self.norm(torch.relu(self.inner(x)) + x)
        return {{"scores": torch.softmax(self.outer(hidden), dim=-1)}}


def build():
    return Net().eval()


def example_inputs():
    return {{"x": torch.linspace(-1, 1, 128).reshape(2, 64)}}


def dynamic_shapes():
    return {{"x": {{0: "batch"}}}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(RECIPE.format(extra="pass"))
    return path


def compiled(recipe: Path, *options: str, code: int = 0) -> Path:
    path = recipe.with_suffix(".lepton")
    assert main(["compile", str(recipe), "-q", "-o", str(path), *options]) == code
    return path


def manifest(path: Path) -> dict:
    with open_artifact(path, {}) as artifact:
        return dict(artifact.manifest.raw)


@pytest.mark.parametrize(("precision", "least"), [("fp16", 50.0), ("bf16", 30.0)])
def test_the_evidence_says_that_the_engine_has_not_run(recipe, precision, least):
    raw = manifest(compiled(recipe, "-t", "ort-cuda", "-p", precision))
    found = raw["evidence"]["verification"]["variants"]
    assert [each["variant"] for each in found] == [f"ort-cuda-{precision}"]
    assert found[0]["engine_ran"] is False
    assert "CUDA provider" in found[0]["reason"]
    errors = [o["sqnr_db"] for trial in found[0]["trials"] for o in trial["outputs"]]
    assert len(errors) == 3
    assert all(least < error < 90 for error in errors)
    variant = raw["variants"][0]
    assert (variant["device"], variant["precision"]) == ("gpu", precision)
    halves = {"fp16": "float16", "bf16": "bfloat16"}
    assert {weight["dtype"] for weight in variant["weights"]} == {halves[precision]}


def test_two_builds_give_the_same_bytes(recipe):
    first = compiled(recipe, "-t", "ort-cuda", "-p", "fp16").read_bytes()
    assert compiled(recipe, "-t", "ort-cuda", "-p", "fp16").read_bytes() == first


def test_each_target_gets_a_graph_of_its_own(recipe):
    raw = manifest(compiled(recipe, "-t", "ort-cuda", "-t", "ort-cpu"))
    assert [variant["name"] for variant in raw["variants"]] == ["ort-cuda", "ort-cpu"]
    ran = {e["variant"]: e["engine_ran"] for e in raw["evidence"]["verification"]["variants"]}
    assert ran == {"ort-cuda": False, "ort-cpu": True}
    assert {entry["target"] for entry in raw["passes"]} == {"ort-cuda", "ort-cpu"}


def test_a_layer_outside_the_range_stays_and_is_named(recipe, capfd):
    recipe.write_text(RECIPE.format(extra="self.inner.weight.data[0, 0] = 7e4"))
    compiled(recipe, "-t", "ort-cuda", "-p", "fp16", "--tolerance", "sqnr=30,relative=1")
    path = recipe.with_suffix(".lepton")
    assert main(["inspect", "--passes", str(path), "--json"]) == 0
    passes = json.loads(capfd.readouterr().out)["passes"]
    precision = next(entry for entry in passes if entry["name"] == "precision")
    reasons = [group["reason"] for group in precision["refused"]]
    assert any("70000" in reason and "fp16, which ends at 65504" in reason for reason in reasons)


def test_too_much_error_names_the_node(recipe, capfd):
    path = compiled(
        recipe, "-t", "ort-cuda", "-p", "bf16", "--tolerance", "sqnr=90,relative=1e-5", code=6
    )
    err = capfd.readouterr().err
    assert "scores" in err and "last changed by" in err
    assert "Traceback" not in err
    assert not path.exists()


def test_a_gate_on_time_needs_the_engine(recipe, capfd):
    path = compiled(recipe, "-t", "ort-cuda", "--gate", "latency=1s", code=5)
    assert "cannot be measured on this machine" in capfd.readouterr().err
    assert not path.exists()


def test_what_is_expected_depends_on_the_precision(recipe):
    def tolerance(**flags: str) -> Tolerance:
        return resolve_settings(str(recipe), flags).accepted

    assert tolerance(precision="fp16") == Tolerance(30.0, 0.05)
    assert tolerance(precision="bf16") == Tolerance(18.0, 0.25)
    assert tolerance(precision="bf16", tolerance="sqnr=30") == Tolerance(30.0, 0.25)
    assert tolerance() == Tolerance()
    assert resolve_settings(str(recipe), {"precision": "fp16"}).exact == Tolerance()
