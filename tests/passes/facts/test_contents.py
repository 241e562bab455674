"""The elements of vectors that are computed from sizes: what follows, and what does not."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from leptonc.passes.facts.facts import Facts, function_facts, infer_facts
from leptonc.passes.graph.structure import roots

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'
WEIGHTS = """int64 zero = {0}, int64 one = {1}, int64[1] two = {2}, int64[1] three = {3},
    int64[1] far = {4611686018427387904}, int64[1] last = {-1}"""


def contents(parse, body: str) -> tuple[Facts, ir.Value]:
    """Return the facts and the value `y`."""
    model = parse(f"{HEADER} g (float[n,12,64] x) => (y) <{WEIGHTS}> {{ s = Shape(x) {body} }}")
    value = next(value for node in model.graph for value in node.outputs if value.name == "y")
    return infer_facts(model), value


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Gather(s, one)", (12,)),
        ("y = Slice(s, two, three)", (64,)),
        ("a = Slice(s, two, three)  y = Concat<axis = 0>(a, two)", (64, 2)),
        ("a = Gather(s, one)  y = Mul(a, two)", (24,)),
        ("a = Gather(s, one)  y = Sub(a, two)", (10,)),
        ("a = Gather(s, one)  y = Div(a, two)", (6,)),
        ("a = Gather(s, one)  b = Unsqueeze(a, last)  y = Squeeze(b)", (12,)),
        ("a = Gather(s, zero)  y = Sub(a, a)", (0,)),
        ("a = Gather(s, zero)  b = Mul(a, three)  y = Div(b, a)", (3,)),
    ],
)
def test_integers_that_are_the_same_in_every_run(parse, body, expected):
    facts, value = contents(parse, body)
    assert facts.ints(value) == expected


@pytest.mark.parametrize(
    "body",
    [
        "y = Gather(s, zero)",
        "y = Shape<start = 0>(x)",
        "a = Gather(s, zero)  y = Add(a, two)",
        "a = Gather(s, one)  b = Mul(a, far)  y = Sub(b, b)",
        "a = Gather(s, one)  b = Gather(s, zero)  y = Div(a, b)",
    ],
)
def test_integers_that_are_not(parse, body):
    facts, value = contents(parse, body)
    assert facts.ints(value) is None


def test_a_product_beyond_int64_is_not_followed(parse):
    facts, value = contents(parse, "a = Gather(s, one)  y = Mul(a, far)")
    assert facts.content(value) is None


def test_what_a_function_declares_of_its_inputs_is_not_believed(parse):
    model = parse(
        """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[2] x) => (y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 20]>
        f (a) => (d) { b = Shape(a)  c = Constant<value = int64[1] {1}>()  d = Expand(b, c) }"""
    )
    function = roots(model)[1]
    function.graph.inputs[0].shape = ir.Shape([2])
    facts = function_facts(model, function)
    shape, one = function.graph[0].outputs[0], function.graph[1].outputs[0]
    assert (facts.ints(shape), facts.ints(one)) == (None, (1,))
