"""A graph that is moved to a later opset goes on meaning the same, or is not moved."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from leptonc.passes.graph.names import Names
from leptonc.passes.graph.opset import obstacle_to_raising, raise_opset

HEAD = '<ir_version: 10, opset_import: ["" : {}]>\n'


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceMax", "ReduceL2", "ReduceProd"])
@pytest.mark.parametrize("attributes", ["", "<axes = [1]>", "<axes = [0, -1], keepdims = 0>"])
def test_axes_become_an_input(parse, run, operator, attributes):
    shape = {"": "1,1,1", "<axes = [1]>": "2,1,4"}.get(attributes, "3")
    text = f"g (float[2,3,4] x) => (float[{shape}] y) {{ y = {operator} {attributes} (x) }}"
    model = parse(HEAD.format(17) + text)
    feeds = {"x": np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 8 + 1}
    before = run(model, feeds)
    assert obstacle_to_raising(model, 23) is None
    raise_opset(model, 23, Names(model))
    onnx.checker.check_model(ir.to_proto(model))
    assert model.opset_imports[""] == 23
    np.testing.assert_array_equal(run(model, feeds)[0], before[0])


def test_split_says_how_many_outputs_it_has(parse, run):
    text = "g (float[2,4] x) => (float[2,2] a, float[2,2] b) { a, b = Split <axis = 1 {}> (x) }"
    model = parse(HEAD.format(13) + text.replace("{}", ""))
    feeds = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
    before = run(model, feeds)
    raise_opset(model, 21, Names(model))
    onnx.checker.check_model(ir.to_proto(model))
    for got, expected in zip(run(model, feeds), before, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_an_opset_is_never_lowered(parse):
    model = parse("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    raise_opset(model, 17, Names(model))
    assert model.opset_imports[""] == 20


@pytest.mark.parametrize(
    ("opset", "body", "reason"),
    [
        (12, "y = Neg(x)", "opset 12 is not raised to 23"),
        (
            17,
            "y = Resize(x, e, s)",
            "opset 17 is not raised to 23: Resize ('') changed in between",
        ),
        (
            18,
            "y = GroupNormalization <num_groups = 1> (x, s, s)",
            "opset 18 is not raised to 23: GroupNormalization ('') changed in between",
        ),
        (
            20,
            "y = MaxPool <kernel_shape = [1, 1], ceil_mode = 1> (x)",
            "opset 20 is not raised to 23: MaxPool ('') changed in between",
        ),
        (
            18,
            'y = AveragePool <kernel_shape = [1, 1], auto_pad = "SAME_UPPER"> (x)',
            "opset 18 is not raised to 23: AveragePool ('') changed in between",
        ),
    ],
)
def test_an_operator_that_changed_is_an_obstacle(parse, opset, body, reason):
    text = f"g (float[1,4,2,2] x, float[4] s, float[0] e) => (float[1,4,2,2] y) {{ {body} }}"
    assert obstacle_to_raising(parse(HEAD.format(opset) + text), 23) == reason


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_pools_that_round_down_stay(parse, run, operator):
    attributes = "kernel_shape = [2, 2], strides = [2, 2], pads = [1, 0, 0, 1]"
    text = f"g (float[1,1,4,5] x) => (float[1,1,2,3] y) {{ y = {operator} <{attributes}> (x) }}"
    model = parse(HEAD.format(13) + text)
    feeds = {"x": np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)}
    before = run(model, feeds)
    assert obstacle_to_raising(model, 23) is None
    raise_opset(model, 23, Names(model))
    onnx.checker.check_model(ir.to_proto(model))
    np.testing.assert_array_equal(run(model, feeds)[0], before[0])


def test_functions_are_an_obstacle(parse):
    model = parse(
        """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 20]>
        f (p) => (q) { q = Relu(p) }"""
    )
    assert obstacle_to_raising(model, 23) == (
        "opset 20 is not raised to 23: the model has functions"
    )
    assert obstacle_to_raising(model, 20) is None


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("mode", ["", ", ceil_mode = 0"])
def test_a_pool_that_rounds_down_means_the_same_in_every_version(parse, run, operator, mode):
    body = (
        f"y = {operator} <kernel_shape = [2, 2], strides = [2, 2], pads = [1, 0, 0, 1]{mode}> (x)"
    )
    model = parse(HEAD.format(18) + f"g (float[1,2,5,5] x) => (float[1,2,3,3] y) {{ {body} }}")
    feeds = {"x": np.arange(50, dtype=np.float32).reshape(1, 2, 5, 5)}
    before = run(model, feeds)
    assert obstacle_to_raising(model, 22) is None
    raise_opset(model, 22, Names(model))
    np.testing.assert_array_equal(run(model, feeds)[0], before[0])
