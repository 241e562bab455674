"""What Gather, Slice and their like leave of named dimensions."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.facts.sizes import Size, number, symbol

N, K = symbol("n"), symbol("k")
HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'
INPUTS = "float[n,4,3] a, int64[k,2] rows, int64[n,1,3] same"
ONE = "<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] last = {-1}>"


def sizes(parse, body: str) -> tuple[Size, ...] | None:
    model: ir.Model = parse(f"{HEADER} g ({INPUTS}) => (y) {ONE} {{ {body} }}")
    value = next(value for node in model.graph for value in node.outputs if value.name == "y")
    return infer_facts(model).symbolic(value)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Gather(a, rows)", (K, number(2), number(4), number(3))),
        ("y = Gather<axis = 1>(a, rows)", (N, K, number(2), number(3))),
        ("y = GatherElements<axis = 1>(a, same)", (N, number(1), number(3))),
        ("y = GatherND(a, rows)", (K, number(3))),
        ("y = Slice(a, one, last, one)", (N, number(2), number(3))),
        ("y = Slice(a, zero, two, two)", (N, number(4), number(2))),
    ],
)
def test_the_rest_keeps_its_names(parse, body, expected):
    assert sizes(parse, body) == expected


def test_what_is_left_of_a_named_axis_is_of_no_known_size(parse):
    found = sizes(parse, "y = Slice(a, one, last, zero)")
    assert found is not None
    assert found[0] not in (N, number(0)) and found[1:] == (number(4), number(3))
