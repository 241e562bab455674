"""`leptonc compile -t tensorrt`, with the real builder and without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leptonc.compiler.cli import main
from leptonc.compiler.inspection.describe import describe
from leptonc.runtime.artifact.reader import open_artifact
from leptonc.runtime.engines.loaders import DEMANDS

MODELS = Path(__file__).resolve().parents[2] / "models"

RECIPE = """\
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Linear(32, 64)
        self.norm = torch.nn.LayerNorm(64)
        self.outer = torch.nn.Linear(64, 8)

    def forward(self, x):
        hidden = self.norm(torch.nn.functional.gelu(self.inner(x)))
        {line}
        return {{"scores": torch.softmax(self.outer(hidden), dim=-1)}}


def build():
    return Net().eval()


def example_inputs():
    return {{"x": torch.linspace(-1, 1, 64).reshape(2, 32)}}


def dynamic_shapes():
    return {{"x": {{0: {axis}}}}}
"""


@pytest.fixture
def recipe(tmp_path: Path):
    def write(*, line: str = "pass", axis: str = '("batch", 1, 16)') -> Path:
        path = tmp_path / "net.py"
        path.write_text(RECIPE.format(line=line, axis=axis))
        return path

    return write


def answer(capfd, *arguments: object, code: int = 0) -> dict:
    assert main(["compile", *map(str, arguments), "-t", "tensorrt", "--json"]) == code
    found: dict = json.loads(capfd.readouterr().out)
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_graph_is_proven_and_the_engine_said_not_to_have_run(recipe, capfd, precision):
    path = recipe()
    out = path.with_name("net.lepton")
    said = answer(capfd, path, "-o", out, "-p", precision, "--sm", "86,120")
    (variant,) = said["variants"]
    assert variant["demands"]["compute_capabilities"] == ["8.6", "12.0"]
    assert variant["demands"]["profiles"] == [
        {"x": {"min": [1, 32], "opt": [2, 32], "max": [16, 32]}}
    ]
    (proof,) = said["verification"]["variants"]
    assert proof["engine_ran"] is False
    assert proof["reason"]
    assert len(proof["trials"]) == 3
    figures = said["builds"][variant["name"]]
    assert figures["plan_bytes"] < said["bytes"]
    with open_artifact(out, DEMANDS) as artifact:
        assert "seconds" not in json.dumps(dict(artifact.manifest.raw))
    assert describe(out).to_json()["variants"][0]["about"]["backend"] == "tensorrt"


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_weights_alone_are_in_integers(recipe, capfd, precision):
    path = recipe()
    out = path.with_name("net.lepton")
    asked = ("-p", precision, "--quantization", "weight-only")
    said = answer(capfd, path, "-o", out, *asked, "-t", "ort-cpu")
    assert [variant["name"] for variant in said["variants"]] == [
        f"ort-cpu-{precision}",
        f"tensorrt-{precision}",
    ]
    for proof in said["verification"]["variants"]:
        assert len(proof["trials"]) == 3
        assert all(0.9 < o["cosine"] < 1 for t in proof["trials"] for o in t["outputs"])


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_the_same_compile_gives_the_same_file(recipe, capfd, precision):
    path = recipe()
    files = [path.with_name(f"{number}.lepton") for number in (1, 2)]
    for out in files:
        answer(capfd, path, "-o", out, "-p", precision)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_it_stands_beside_a_variant_for_the_cpu(recipe, capfd):
    from leptonc.runtime import load

    path = recipe()
    out = path.with_name("net.lepton")
    said = answer(capfd, path, "-o", out, "-t", "ort-cpu")
    assert [variant["name"] for variant in said["variants"]] == ["ort-cpu", "tensorrt"]
    assert [each["engine_ran"] for each in said["verification"]["variants"]] == [True, False]
    with load(out, device="cpu") as session:
        assert session.variant == "ort-cpu"


@pytest.mark.parametrize(
    ("axis", "options", "told", "code"),
    [
        ('"batch"', (), "no upper bound", 2),
        ('("batch", 1, 16)', ("-p", "int8"), "no data, no INT8", 3),
        ('("batch", 1, 16)', ("--flavour", "classic"), "tensorrt is not installed", 5),
    ],
)
def test_what_cannot_be_built_is_one_error_and_no_file(recipe, capfd, axis, options, told, code):
    path = recipe(axis=axis)
    out = path.with_name("net.lepton")
    error = answer(capfd, path, "-o", out, *options, code=code)["error"]
    assert told in error["what"]
    assert error["fix"]
    assert not out.exists()


def test_a_dry_run_lists_what_is_not_taken_and_builds_nothing(recipe, capfd):
    path = recipe(line="return {'scores': torch.bitwise_and((hidden > 0).int(), 1)}")
    said = answer(capfd, path, "--dry-run", code=4)
    (coverage,) = said["targets"]
    assert said["covered"] is False
    assert [entry["operator"] for entry in coverage["uncovered"]] == ["BitwiseAnd"]
    (entry,) = coverage["uncovered"]
    assert "net.py:14" in entry["line"]
    assert entry["fix"]
    assert coverage["nodes"] > 1
    assert not path.with_name("net.lepton").exists()
    assert main(["compile", str(path), "-t", "tensorrt", "--dry-run", "-q"]) == 4
    shown = capfd.readouterr().out
    assert "BitwiseAnd" in shown
    assert "no such operator" in shown


def test_a_dry_run_of_another_target_is_wrong_usage(recipe, capfd):
    assert answer(capfd, recipe(), "--dry-run", "-t", "ort-cpu", code=2)["error"]["fix"]


@pytest.mark.parametrize("model", ["digits_cnn", "minilm"])
def test_the_small_recipes_build(model, capfd, tmp_path):
    out = tmp_path / "model.lepton"
    said = answer(capfd, MODELS / f"{model}.py", "-o", out, "-p", "fp16", "--sm", "86,89,120")
    assert said["variants"][0]["demands"]["compute_capabilities"] == ["8.6", "8.9", "12.0"]
    assert said["builds"]["tensorrt-fp16"]["plan_bytes"] > 100_000
    assert out.stat().st_size == said["bytes"]
