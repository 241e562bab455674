"""FusedConv taken apart, for engines that have no kernel for it in half the width."""

from __future__ import annotations

import numpy as np
import pytest

from leptonc.passes.lower.plain_conv import PLAIN_CONVOLUTION
from leptonc.passes.pipeline import run_passes

HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>\n'
SHAPES = "float[1,2,4,4] x, float[3,2,3,3] w, float[3] b, float[1,3,4,4] z"


def fused(inputs: str, activation: str) -> str:
    attributes = f'pads = [1,1,1,1], activation = "{activation}"'
    body = f"y = com.microsoft.FusedConv <{attributes}> ({inputs})"
    return f"{HEAD} g ({SHAPES}) => (float[1,3,4,4] y) {{ {body} }}"


@pytest.mark.parametrize(
    ("inputs", "operators"),
    [
        ("x, w", ["Conv", "Relu"]),
        ("x, w, b", ["Conv", "Relu"]),
        ("x, w, b, z", ["Conv", "Add", "Relu"]),
    ],
)
def test_it_computes_the_same(parse, run, inputs, operators):
    model = parse(fused(inputs, "Relu"))
    generator = np.random.default_rng(0)
    feeds = {
        name: generator.standard_normal(shape).astype(np.float32)
        for name, shape in (
            ("x", (1, 2, 4, 4)),
            ("w", (3, 2, 3, 3)),
            ("b", (3,)),
            ("z", (1, 3, 4, 4)),
        )
    }
    before = run(model, feeds)[0]
    run_passes(model, (PLAIN_CONVOLUTION,))
    assert [node.op_type for node in model.graph] == operators
    assert {node.domain for node in model.graph} == {""}
    np.testing.assert_allclose(run(model, feeds)[0], before, atol=1e-5)


def test_an_activation_with_parameters_stays(parse):
    model = parse(fused("x, w", "LeakyRelu"))
    stats = run_passes(model, (PLAIN_CONVOLUTION,))[0]
    assert stats.refused[0].reason == "LeakyRelu has parameters"
