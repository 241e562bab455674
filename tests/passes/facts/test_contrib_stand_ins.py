"""What follows an operator that ONNX's inference does not know is known all the same."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.facts.sizes import number, symbol

N = symbol("n")
HEADER = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>\n'
INPUTS = "float[n,4,8] x, float[8] g, float[8,6] w, float[1,3,8,8] image, float[5,3,3,3] k"


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("h = com.microsoft.Gelu(x) y = Relu(h)", (N, number(4), number(8))),
        ("h = com.microsoft.BiasGelu(x, g) y = Relu(h)", (N, number(4), number(8))),
        (
            "h = com.microsoft.SkipLayerNormalization(x, x, g) y = Relu(h)",
            (N, number(4), number(8)),
        ),
        (
            "h, a, b, s = com.microsoft.SkipLayerNormalization(x, x, g) y = Relu(s)",
            (N, number(4), number(8)),
        ),
        (
            'h = com.microsoft.FusedConv<activation = "Relu">(image, k) y = Relu(h)',
            tuple(map(number, (1, 5, 6, 6))),
        ),
    ],
)
def test_its_result_has_the_type_and_shape_of_the_standard_one(parse, body, shape):
    model: ir.Model = parse(f"{HEADER} g ({INPUTS}) => (y) {{ {body} }}")
    facts = infer_facts(model)
    found = model.graph.outputs[0]
    assert facts.dtype(found) == ir.DataType.FLOAT
    assert facts.symbolic(found) == shape


def test_what_has_no_standard_kin_stays_unknown(parse):
    model: ir.Model = parse(
        f"{HEADER} g ({INPUTS}) => (y) {{ h = com.microsoft.NoSuchOperator(x) y = Relu(h) }}"
    )
    assert infer_facts(model).symbolic(model.graph.outputs[0]) is None
