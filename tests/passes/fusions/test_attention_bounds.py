"""Between which numbers a mask lies."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, run_plain, surround

from leptonc.passes.facts import infer_facts
from leptonc.passes.fusions.attention_bounds import Bounds, bounds
from leptonc.passes.site import Site

LOWEST = float(np.finfo(np.float32).min)

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def found(parse, body: str, weights: str = "") -> Bounds | None:
    """Return the bounds of the last value of a graph of `keep`, `whole` and `x`."""
    text = f"g (bool[2,3] keep, int64[2,3] whole, float[2,3] x) => (y) <{weights}> {{ {body} }}"
    model = parse(HEADER + text)
    last = list(model.graph)[-1]
    site = Site(last, infer_facts(model), 20)
    return bounds(site, last.outputs[0])


@pytest.mark.parametrize(
    ("body", "weights", "expected"),
    [
        ("y = Where(keep, a, b)", "float a = {0}, float b = {-8}", Bounds(-8, 0)),
        ("y = Cast<to = 1>(keep)", "", Bounds(0, 1)),
        ("c = Cast<to = 1>(keep)  y = Sub(a, c)", "float a = {1}", Bounds(0, 1)),
        (
            "c = Cast<to = 1>(keep)  s = Sub(a, c)  y = Mul(s, b)",
            "float a = {1}, float b = {-10000}",
            Bounds(-10000, 0),
        ),
        ("c = Cast<to = 1>(keep)  y = Neg(c)", "", Bounds(-1, 0)),
        ("c = Cast<to = 1>(keep)  y = Max(c, a)", "float a = {0.5}", Bounds(0.5, 1)),
        ("y = Gather(a, whole)", "float[2] a = {3, 5}", Bounds(3, 5)),
        ("y = Add(x, a)", "float a = {1}", None),
        ("y = Identity(whole)", "", None),
        ("y = Div(a, x)", "float a = {1}", None),
    ],
)
def test_bounds(parse, body, weights, expected):
    assert found(parse, body, weights) == expected


def constant(array: np.ndarray) -> Bounds | None:
    value = ir.Value(name="mask", const_value=ir.tensor(array))
    reader = ir.Node("", "Neg", [value])
    ir.Graph([], reader.outputs, nodes=[reader], initializers=[value], opset_imports={"": 20})
    return bounds(Site(reader, infer_facts(ir.Model(reader.graph, ir_version=10)), 20), value)


def test_a_causal_mask_leaves_a_key_in_each_row():
    mask = np.triu(np.full((3, 3), -np.inf, np.float32), 1)
    assert constant(mask) == Bounds(0, 0, infinite=True, empty_rows=False)
    mask[1] = -np.inf
    assert constant(mask) == Bounds(0, 0, infinite=True, empty_rows=True)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none(number):
    assert constant(np.array([0, number], np.float32)) is None


def test_two_masks_of_infinity_may_leave_no_key():
    one = Bounds(0, 0, infinite=True, empty_rows=False)
    assert one.plus(one).empty_rows
    assert not one.plus(Bounds(-1, 1)).empty_rows


def test_two_lowest_numbers_make_infinity(parse):
    weights = "float a = {0}, float b = {-3.4028234663852886e38}"
    once = found(parse, "y = Where(keep, a, b)", weights)
    assert once == Bounds(LOWEST, 0)
    twice = found(parse, "m = Where(keep, a, b)  y = Add(m, m)", weights)
    assert twice is None


def test_ends_are_rounded_as_the_elements_are(parse):
    weights = "float a = {0.1}, float b = {0.7}"
    total = float(np.float32(0.1) + np.float32(0.7))
    assert total != float(np.float32(0.1)) + float(np.float32(0.7))
    assert found(parse, "y = Add(a, b)", weights) == Bounds(total, total)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_element_lies_outside(data):
    """Random expressions of booleans and constants, run as they are."""
    pattern = Pattern()
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    keep = pattern.input(random.random((2, 3)) > 0.5)
    values = [pattern.add("Cast", keep, to=1), pattern.weight(np.float32(LOWEST))]
    values.append(pattern.weight(random.standard_normal((2, 3)).astype(np.float32)))
    values.append(pattern.weight(np.float32(-np.inf)))
    operators = ["Add", "Sub", "Mul", "Max", "Neg", "Where", "Transpose"]
    for op_type in data.draw(st.lists(st.sampled_from(operators), min_size=1, max_size=4)):
        first, second = (data.draw(st.sampled_from(values)) for _ in range(2))
        if op_type == "Where":
            values.append(pattern.add("Where", keep, first, second))
        elif op_type == "Neg":
            values.append(pattern.add("Neg", first))
        elif op_type == "Transpose":
            turned = pattern.add("Expand", first, pattern.weight(np.array([2, 3], np.int64)))
            turned = pattern.add("Transpose", turned, perm=[1, 0])
            values.append(pattern.add("Transpose", turned, perm=[1, 0]))
        else:
            values.append(pattern.add(op_type, first, second))
    surrounded = surround(data.draw, pattern)
    results = run_plain(surrounded.model, surrounded.feeds)
    model = ir.from_proto(surrounded.model)
    facts = infer_facts(model)
    for output in model.graph.outputs:
        if output.producer() is None or output.dtype != ir.DataType.FLOAT:
            continue
        known = bounds(Site(output.producer(), facts, 20), output)
        if known is None:
            continue
        array = results[output.name].astype(np.float64)
        finite = array[np.isfinite(array)]
        assert not np.isnan(array).any()
        assert (finite >= known.low).all()
        assert (finite <= known.high).all()
        assert known.infinite or np.isfinite(array).all()
