"""Plans that TensorRT for RTX really builds here, without a GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tensorrt_graphs import graph, in_blocks, linear, quantised, target

from leptonc.backends.base import DimRange, ignore_progress
from leptonc.backends.errors import (
    BuildError,
    UnsupportedOperatorError,
    UnsupportedTargetError,
)
from leptonc.backends.tensorrt import process as tensorrt_process
from leptonc.backends.tensorrt.backend import TensorRTBackend
from leptonc.backends.tensorrt.process import BuildRequest, run_builder
from leptonc.runtime.engines.tensorrt.plan_demands import parse_plan_demands
from leptonc.runtime.engines.tensorrt.plan_header import check_plan_header
from leptonc.runtime.errors import EngineMissingError, EnvironmentProblem
from leptonc.runtime.machine import this_system

HALF = {"fp32": "float", "fp16": "float16", "bf16": "bfloat16"}


def refuse(path: str, what: str):
    raise AssertionError(f"{path}: {what}")


@pytest.mark.parametrize("precision", HALF)
def test_a_plan_says_what_it_demands(tmp_path, precision):
    payload = TensorRTBackend().build(linear(HALF[precision]), target(precision), tmp_path)
    demands = parse_plan_demands(payload.variant["demands"], "$", refuse)
    assert demands.flavour == "tensorrt-rtx"
    assert demands.compute_capabilities == ("8.6", "8.9")
    assert demands.system == this_system()
    assert demands.profiles[0]["x"].max == (8, 16)
    assert payload.variant["precision"] == precision
    check_plan_header(payload.graph, demands, "the plan")
    assert payload.not_run is not None
    assert payload.figures["plan_bytes"] == len(payload.graph)
    assert payload.figures["peak_bytes"] > len(payload.graph)


@pytest.mark.parametrize(
    ("model", "precision"),
    [(linear, "fp32"), (quantised, "int8"), (in_blocks, "int4")],
    ids=["fp32", "int8", "int4"],
)
def test_two_builds_give_the_same_bytes(tmp_path, model, precision):
    first, second = (
        TensorRTBackend().build(model(), target(precision), tmp_path / name) for name in ("a", "b")
    )
    if not first.figures["repeatable"]:
        pytest.fail("this machine does not let a process turn off random addresses")
    assert first.graph == second.graph
    assert first.variant == second.variant


def test_the_model_that_is_built_stays_as_it_is(tmp_path):
    model = linear()
    before = ir.to_onnx_text(model)
    payload = TensorRTBackend().build(model, target(), tmp_path)
    assert ir.to_onnx_text(model) == before
    np.testing.assert_array_equal(
        payload.model().graph.initializers["w"].const_value.numpy(),
        model.graph.initializers["w"].const_value.numpy(),
    )
    assert sorted(path.name for path in (tmp_path / "tensorrt").iterdir()) == [
        *("builder.log", "request.json", "result.json"),
    ]


def test_several_profiles_are_in_one_plan(tmp_path):
    from dataclasses import replace

    both = ({"batch": DimRange(1, 1, 1)}, {"batch": DimRange(2, 8, 64)})
    payload = TensorRTBackend().build(linear(), replace(target(), profiles=both), tmp_path)
    maxima = [each["x"]["max"] for each in payload.variant["demands"]["profiles"]]
    assert maxima == [[1, 16], [64, 16]]


def test_options_reach_the_builder(tmp_path):
    asked = target(builder_level=0, workspace=64 << 20, weight_streaming=True)
    payload = TensorRTBackend().build(linear(), asked, tmp_path)
    request = json.loads((tmp_path / "tensorrt" / "request.json").read_text())
    assert (request["level"], request["workspace"]) == (0, 64 << 20)
    assert request["flags"] == ["WEIGHT_STREAMING"]
    plain = TensorRTBackend().build(linear(), target(), tmp_path / "plain")
    assert payload.graph != plain.graph
    assert payload.variant["options"] == {"weight_streaming": "yes"}


def test_symmetric_int8_builds(tmp_path):
    payload = TensorRTBackend().build(quantised(), target("int8"), tmp_path)
    assert payload.variant["name"] == "tensorrt-int8"
    assert len(payload.graph) > 0


def test_a_plan_keeps_its_weights_in_four_bits(tmp_path):
    sizes = []
    for columns in (256, 2304):
        model = in_blocks(columns=columns)
        payload = TensorRTBackend().build(model, target("int4"), tmp_path / str(columns))
        sizes.append(len(payload.graph))
    # A weight with its scales takes 0.5 + 4/64 bytes; in half width it would be 2.
    assert sizes[1] - sizes[0] < 256 * 2048 * 0.75


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_integers_of_a_graph_without_any_are_refused(tmp_path, precision):
    with pytest.raises(UnsupportedTargetError, match=f"{precision} and quantises nothing"):
        TensorRTBackend().build(linear(), target(precision), tmp_path)


def test_progress_rises_to_the_end(tmp_path):
    seen: list[float] = []
    texts: set[str] = set()

    def note(done: float, text: str) -> None:
        seen.append(done)
        texts.add(text)

    TensorRTBackend().build(linear(), target(), tmp_path, note)
    assert seen == sorted(seen)
    assert seen[0] < 0.5
    assert seen[-1] == 1.0
    assert "Building engine" in texts


UNTAKEN = [
    ("g (float[batch,4] x) => (int64[p,q] y) { y = NonZero(x) }", "NonZero", "no such operator"),
    ("g (double[batch,4] x) => (double[batch,4] y) { y = Relu(x) }", "Relu", "x' is double"),
    ("g (float[batch,4] x) => (float[batch,4] y) { y = acme.Mix(x) }", "acme::Mix", "'acme'"),
    (
        "g (float[batch,4] x) => (float[batch,4] y) { y = com.microsoft.BiasGelu(x, x) }",
        "com.microsoft::BiasGelu",
        "no such operator",
    ),
    (
        "g (float[batch,4] x) => (uint8[batch,4] y, float s, uint8 z)"
        "{ y, s, z = DynamicQuantizeLinear(x) }",
        "DynamicQuantizeLinear",
        "no such operator",
    ),
    (
        "g (float[batch,4] x) => (float[batch,4] y) <float s = {0.1}, uint8 z = {0}>"
        "{ q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }",
        "QuantizeLinear",
        "around zero; this is uint8",
    ),
    (
        "g (float[batch,4] x) => (float[batch,4] y) <float s = {0.1}, int8 z = {3}>"
        "{ q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }",
        "QuantizeLinear",
        "zero point is not 0",
    ),
    (
        "g (int32[batch,4] x) => (float[batch,4] y) <float s = {0.1}>{ y = DequantizeLinear(x, s) }",
        "DequantizeLinear",
        "biases",
    ),
]


@pytest.mark.parametrize(("text", "operator", "reason"), UNTAKEN, ids=[row[1] for row in UNTAKEN])
def test_what_is_known_to_be_refused_never_reaches_tensorrt(
    tmp_path, monkeypatch, text, operator, reason
):
    monkeypatch.setattr("leptonc.backends.tensorrt.backend.run_builder", None)
    model = graph(text)
    model.graph[0].metadata_props["leptonc.line"] = "net.py:12"
    with pytest.raises(UnsupportedOperatorError, match=reason) as caught:
        TensorRTBackend().build(model, target(), tmp_path)
    assert f"({operator}), from net.py:12" in str(caught.value.where)
    assert caught.value.fix
    said = TensorRTBackend().dry_run(model, target(), tmp_path)
    assert said.refused[0].operator == operator
    assert said.parser is None


def test_attention_of_one_tensor_is_refused_before_it_crashes_the_builder(tmp_path):
    model = graph("g (float[batch,2,4,8] x) => (float[batch,2,4,8] y) { y = Attention(x, x, x) }")
    model.opset_imports[""] = 23
    with pytest.raises(UnsupportedOperatorError, match="crashes the builder"):
        TensorRTBackend().build(model, target(), tmp_path)


@pytest.mark.parametrize(
    ("precision", "reason"), [("bf16", "no bfloat16"), ("fp32", "no float32 matrix products")]
)
def test_what_turing_lacks_is_refused(tmp_path, precision, reason):
    with pytest.raises(UnsupportedOperatorError, match=reason):
        TensorRTBackend().build(linear(HALF[precision]), target(precision, sm=("75",)), tmp_path)


# By the parser, not by our rules.
REFUSED_BY_PARSER = [
    (
        "g (float[1,1,4,4] x) => (float[1,1,2,2] y, int64[1,1,2,2] i)"
        "{ h = Relu(x)  y, i = MaxPool<kernel_shape = [2,2], strides = [2,2]>(h) }",
        "TensorRT does not take MaxPool: This version of TensorRT doesn't support mode than 1 "
        "outputs for MaxPool nodes",
    ),
    (
        "g (float[1,1,4,4] x) => (float[1,1,8,8] y) <float[4] s = {1,1,2,2}>"
        '{ h = Relu(x)  y = Resize<mode = "cubic", antialias = 1>(h, , s) }',
        "TensorRT does not take Resize: Antialiasing is not supported currently",
    ),
]


@pytest.mark.parametrize(("text", "what"), REFUSED_BY_PARSER)
def test_a_parser_error_names_our_node_and_the_line(tmp_path, text, what):
    model = graph(text)
    model.graph[1].metadata_props["leptonc.line"] = "net.py:7"
    with pytest.raises(UnsupportedOperatorError) as caught:
        TensorRTBackend().build(model, target(), tmp_path)
    assert caught.value.what == what
    assert caught.value.where == f"node 'y' ({model.graph[1].op_type}), from net.py:7"
    said = TensorRTBackend().dry_run(model, target(), tmp_path)
    assert said.parser is not None
    assert said.refused[0].where == caught.value.where


def test_an_input_that_decides_a_shape_is_refused(tmp_path):
    model = graph("g (float[batch,4] x, int64 a) => (float[batch,4] y) { y = CumSum(x, a) }")
    with pytest.raises(UnsupportedOperatorError, match="its values decide shapes") as caught:
        TensorRTBackend().build(model, target(), tmp_path)
    assert caught.value.where == "node 'a' (graph input)"
    assert "constant" in str(caught.value.fix)


def test_a_refusal_of_the_builder_names_our_node_and_the_line(tmp_path):
    model = graph(
        "g (float[4,8000] x) => (float[4,5000] most, int64[4,5000] i) <int64[1] k = {5000}>"
        "{ h = Relu(x)  most, i = TopK(h, k) }"
    )
    model.graph[1].metadata_props["leptonc.line"] = "net.py:9"
    with pytest.raises(BuildError) as caught:
        TensorRTBackend().build(model, target(), tmp_path)
    assert "K exceeds the maximum value allowed (3840)" in caught.value.what
    assert "/_src/" not in caught.value.what
    assert caught.value.where == "node 'most' (TopK), from net.py:9"


def test_what_is_taken_is_read_by_the_parser(tmp_path):
    said = TensorRTBackend().dry_run(linear(), target(), tmp_path)
    assert said.refused == ()
    assert said.parser is not None
    assert said.parser.startswith("tensorrt-rtx ")


def test_a_flavour_that_is_not_installed_is_an_environment_problem(tmp_path):
    with pytest.raises(EngineMissingError, match="tensorrt is not installed") as caught:
        TensorRTBackend().build(linear(), target(flavour="classic", sm=()), tmp_path)
    assert caught.value.exit_code == 5


def crashing(tmp_path: Path, monkeypatch, body: str) -> None:
    """Put another script in the builder's place."""
    script = tmp_path / "builder.py"
    script.write_text(f"import os, signal, sys, time, json\n{body}\n")
    monkeypatch.setattr(tensorrt_process.tensorrt_builder, "__file__", str(script))


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        ("SIGSEGV", BuildError, "crashed with SIGSEGV"),
        ("SIGABRT", BuildError, "crashed with SIGABRT"),
        ("SIGKILL", EnvironmentProblem, "SIGKILL"),
    ],
)
def test_a_builder_that_crashes_is_one_error(tmp_path, monkeypatch, number, kind, told):
    event = (
        r'os.write(int(sys.argv[2]), b"{\"phase\": \"Fusing\", \"parent\": null, \"steps\": 2}\n")'
    )
    crashing(tmp_path, monkeypatch, f"{event}\nos.kill(os.getpid(), signal.{number})")
    with pytest.raises(kind, match=told) as caught:
        TensorRTBackend().build(linear(), target(), tmp_path)
    assert "it was at 'Fusing'" in caught.value.what


def test_a_builder_that_fails_says_what_it_printed(tmp_path, monkeypatch):
    crashing(tmp_path, monkeypatch, "sys.exit('no room on the disk')")
    with pytest.raises(BuildError, match="no room on the disk"):
        TensorRTBackend().build(linear(), target(), tmp_path)


def test_ctrl_c_ends_the_builder(tmp_path, monkeypatch):
    note = tmp_path / "pid"
    crashing(
        tmp_path,
        monkeypatch,
        f"open({str(note)!r}, 'w').write(str(os.getpid()))\n"
        r'os.write(int(sys.argv[2]), b"{\"phase\": \"A\", \"parent\": null, \"steps\": 2}\n")'
        "\ntime.sleep(60)",
    )

    def interrupt(done: float, text: str) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_builder(BuildRequest("rtx", tmp_path / "m.onnx"), tmp_path, interrupt)
    assert time.monotonic() - start < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_the_real_builder_stops_when_it_is_asked_to(tmp_path):
    from leptonc.backends.saved_graph import saved

    def interrupt(done: float, text: str) -> None:
        raise KeyboardInterrupt

    (tmp_path / "work").mkdir()
    with saved(linear(), tmp_path) as path, pytest.raises(KeyboardInterrupt):
        request = BuildRequest(
            "rtx",
            path,
            ("8.6",),
            ({"x": {"min": [1, 16], "opt": [2, 16], "max": [8, 16]}},),
        )
        run_builder(request, tmp_path / "work", interrupt)
    assert not (tmp_path / "work" / "plan").exists()


def test_a_builder_without_its_parent_ends(tmp_path):
    from leptonc.backends.saved_graph import saved

    with saved(linear(), tmp_path) as path:
        request = BuildRequest("rtx", path).to_json(tmp_path)
        (tmp_path / "request.json").write_text(json.dumps({**request, "parent": 1}))
        script = str(tensorrt_process.tensorrt_builder.__file__)
        done = subprocess.run(
            [sys.executable, "-P", script, str(tmp_path / "request.json"), "1"], check=False
        )
    assert done.returncode == 1
    assert not (tmp_path / "result.json").exists()
    assert signal.Signals.SIGKILL.value == 9


def test_nothing_to_show_is_no_trouble():
    assert ignore_progress(0.5, "x") is None
