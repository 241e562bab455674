"""From a recipe to integers: every range method on the digits, the table, and the whole command."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from leptonc.backends import find_backend, parse_target
from leptonc.backends.ort.backend import OrtBackend
from leptonc.compiler.accuracy.stage import Settled
from leptonc.compiler.calibration.observe import observe_ranges
from leptonc.compiler.cli import main
from leptonc.compiler.console.progress import Steps
from leptonc.compiler.job import Job
from leptonc.compiler.manifest import quantization_entry
from leptonc.compiler.quantization.float_graph import float_graph, quantized
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.subject import Subject, open_and_export
from leptonc.passes.ranges import methods as range_methods
from leptonc.passes.ranges.file import write_ranges
from leptonc.passes.schedule import CANONICAL, optimize
from leptonc.runtime import load

MODELS = Path(__file__).resolve().parents[3] / "models"
DIGITS = str(MODELS / "digits_cnn.py")
TARGET = parse_target("ort-cpu", precision="int8")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, Path]:
    """The exported digits network and its calibration table."""
    subject = open_and_export(CompileSettings(DIGITS, Path("unused.lepton")), Steps())
    canonical = subject.model.clone()
    optimize(canonical, target="ort-cpu", upto=CANONICAL)
    table = tmp_path_factory.mktemp("table") / "ranges.json"
    write_ranges(table, observe_ranges(canonical, subject.source, limit=100))
    return subject, table


def job_for(subject: Subject, settings: CompileSettings) -> Job:
    backend = find_backend(TARGET)
    return Job(settings, subject.source, subject.trials, TARGET, backend, Path("unused"), Steps())


@pytest.fixture(scope="module")
def evaluate():
    sys.path.insert(0, str(MODELS))
    try:
        yield runpy.run_path(DIGITS)["evaluate"]
    finally:
        sys.path.remove(str(MODELS))


@pytest.mark.parametrize("method", range_methods.METHODS)
def test_digits_lose_nothing_to_any_range_method(digits, evaluate, tmp_path, method):
    subject, table = digits
    settings = CompileSettings(
        DIGITS, Path("x.lepton"), precision="int8", calibration=table, range_method=method
    )
    floats = float_graph(job_for(subject, settings), subject.model.clone())
    made, _ = quantized(floats, TARGET)
    before = evaluate(GraphRunner(subject.model.clone()))["accuracy"]
    after = evaluate(GraphRunner(made))["accuracy"]
    assert after >= before - 0.003
    payload = OrtBackend().build(made, TARGET, tmp_path)
    assert len(payload.integers) == len(floats.plan.quantized) == 4
    about = quantization_entry(settings, Settled(floats))
    assert {entry["range_method"] for entry in about["layers"]} == {method}
    assert about["calibration"]["samples"] == 100


def test_equal_inputs_give_equal_graphs(digits, tmp_path):
    subject, table = digits
    settings = CompileSettings(DIGITS, Path("x.lepton"), precision="int8", calibration=table)
    graphs = []
    for name in ("a", "b"):
        floats = float_graph(job_for(subject, settings), subject.model.clone())
        made, _ = quantized(floats, TARGET)
        graphs.append(OrtBackend().build(made, TARGET, tmp_path / name).graph)
    assert graphs[0] == graphs[1]


def test_the_command_writes_an_artifact_that_says_how_each_layer_runs(digits, tmp_path, capsys):
    _, table = digits
    output = tmp_path / "digits.lepton"
    arguments = ["compile", DIGITS, "-p", "int8", "--calibration", str(table), "--json"]
    assert main([*arguments, "-o", str(output)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [variant["precision"] for variant in answer["variants"]] == ["int8"]
    session = load(output)
    about = session.manifest["quantization"]["ort-cpu-int8"]
    assert {layer["method"] for layer in about["layers"]} == {"static"}
    operators = session.manifest["evidence"]["integers"]["ort-cpu-int8"]
    assert sorted(operators.values()) == ["QGemm", "QLinearConv", "QLinearConv", "QLinearConv"]
    image = np.zeros((1, 1, 8, 8), np.float32)
    assert session(image=image)["logits"].shape == (1, 10)


def test_a_table_of_another_graph_is_refused(digits, tmp_path, capsys):
    _, table = digits
    output = tmp_path / "x.lepton"
    arguments = ["compile", DIGITS, "-p", "int8", "--calibration", str(table), "--opset", "21"]
    assert main([*arguments, "-o", str(output), "-q"]) == 3
    assert "another graph" in capsys.readouterr().err
    assert not output.exists()


def test_attention_that_came_packed_is_computed_in_integers(tmp_path, capfd):
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((64, 192)).astype(np.float32) / 8
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>'
        " g (float[batch,5,64] x) => (float[batch,5,64] y)"
        " { y = com.microsoft.Attention <num_heads = 4> (x, w, b) }"
    )
    for name, array in (("w", weight), ("b", weight[0])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "packed.onnx")
    words = [str(tmp_path / "packed.onnx"), "-p", "int8", "--quantization", "dynamic", "--json"]
    assert main(["compile", *words, "-o", str(tmp_path / "packed.lepton")]) == 0
    said = json.loads(capfd.readouterr().out)
    (layer,) = said["quantization"]["ort-cpu-int8"]["layers"]
    assert (layer["operator"], layer["method"]) == ("MatMul", "dynamic")
