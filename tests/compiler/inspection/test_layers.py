"""What `--explain` and `inspect` say of quantised layers."""

from __future__ import annotations

import json

import pytest

from leptonc.compiler.cli import main

RECIPE = """
import torch

torch.manual_seed(3)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 16, 3)
        self.second = torch.nn.Conv2d(16, 8, 3)
        self.last = torch.nn.Linear(8, 4)
        self.turned = torch.nn.ConvTranspose2d(8, 2, 2)

    def forward(self, x):
        h = torch.relu(self.second(torch.relu(self.first(x))))
        return {"scores": self.last(h.mean((2, 3))), "image": self.turned(h)}


def build():
    return Net().eval()


def example_inputs():
    return {"x": torch.randn(2, 3, 12, 12)}


def dynamic_shapes():
    return {"x": {0: ("batch", 1, 8)}}


def calibration_data():
    generator = torch.Generator().manual_seed(5)
    for _ in range(4):
        yield {"x": torch.randn(2, 3, 12, 12, generator=generator).numpy()}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    recipe = folder / "net.py"
    recipe.write_text(RECIPE)
    out = folder / "net.lepton"
    arguments = ["-t", "ort-cpu", "-t", "tensorrt", "--sm", "86", "-p", "int8", "--explain"]
    assert main(["compile", str(recipe), "-o", str(out), "-q", *arguments]) == 0
    return out


def inspected(capsys, path, *options):
    assert main(["inspect", str(path), *options]) == 0
    return capsys.readouterr().out


def test_the_manifest_has_every_layer_of_every_variant(compiled, capsys):
    record = json.loads(inspected(capsys, compiled, "--json"))
    assert list(record["quantization"]) == ["ort-cpu-int8", "tensorrt-int8"]
    for variant, account in record["quantization"].items():
        rows = account["layers"]
        assert [row["operator"] for row in rows] == ["Conv", "Conv", "Gemm", "ConvTranspose"]
        for row in rows:
            if row["method"] == "static":
                assert row["range"]["low"] <= 0 < row["range"]["high"]
                assert row["sqnr_db"] > 20
        assert account["calibration"]["samples"] == 8
        shares = [row["latency_share"] for row in rows]
        assert sum(shares) == pytest.approx(1, abs=0.01)
        if variant.startswith("ort"):
            # Also where the engine renames the nodes as it loads them.
            assert all(share > 0 for share in shares)
    turned = record["quantization"]["ort-cpu-int8"]["layers"][3]
    assert turned["method"] == "float"
    assert "ONNX Runtime has no transposed convolution" in turned["reason"]


def test_the_tables_show_it(compiled, capsys):
    record = json.loads(inspected(capsys, compiled, "--json"))
    for options in ((), ("--passes",)):
        text = inspected(capsys, compiled, *options)
        for variant, account in record["quantization"].items():
            assert f"layers of {variant}: " in text
            assert "ranges of 8 samples" in text
            for row in account["layers"]:
                assert f"\n{row['layer']} " in text
        assert "QLinearConv" in text
        for column in ("precision", "method", "range", "SQNR", "time", "because"):
            assert f" {column} " in text or f" {column}\n" in text


def test_the_engines_own_account_stands_beside_the_layers(compiled, capsys):
    record = json.loads(inspected(capsys, compiled, "--json"))
    read = record["evidence"]["integers"]["ort-cpu-int8"]
    static = [
        row["layer"]
        for row in record["quantization"]["ort-cpu-int8"]["layers"]
        if row["method"] == "static"
    ]
    assert sorted(read) == sorted(static)
    assert set(read.values()) == {"QLinearConv", "QGemm"}


def test_compile_prints_the_table_with_explain_alone(compiled, tmp_path, capsys):
    recipe = compiled.with_name("net.py")
    out = tmp_path / "net.lepton"
    command = ["compile", str(recipe), "-t", "ort-cpu", "-p", "int8", "-q", "-o", str(out)]
    assert main([*command, "--explain"]) == 0
    assert "layers of ort-cpu-int8: 1 float, 3 static" in capsys.readouterr().out
    assert main(command) == 0
    assert "layers of" not in capsys.readouterr().out
