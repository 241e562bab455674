"""Between which numbers a mask lies."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, run_plain, surround

from leptonc.passes.bounds.bounds import bounds, first_bounds
from leptonc.passes.bounds.interval import Bounds
from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.rewriting.site import Site

LOWEST = float(np.finfo(np.float32).min)

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def found(parse, body: str, weights: str = "", look=bounds) -> Bounds | None:
    """Return the bounds of the last value of a graph of `keep`, `whole` and `x`."""
    text = f"g (bool[2,3] keep, int64[2,3] whole, float[2,3] x) => (y) <{weights}> {{ {body} }}"
    model = parse(HEADER + text)
    last = list(model.graph)[-1]
    site = Site(last, infer_facts(model), 20)
    return look(site, last.outputs[0])


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
        ("y = Identity(keep)", "", Bounds(0, 1)),
        ("y = Not(a)", "bool a = {1}", Bounds(0, 0)),
        ("y = And(keep, a)", "bool a = {0}", Bounds(0, 0)),
        ("y = Or(keep, a)", "bool a = {1}", Bounds(1, 1)),
        ("y = Equal(a, b)", "float[2] a = {1, 3}, float b = {4}", Bounds(0, 0)),
        ("y = Equal(b, a)", "float a = {4}, float b = {4}", Bounds(1, 1)),
        ("y = Equal(a, b)", "float[2] a = {1, 4}, float b = {4}", Bounds(0, 1)),
        ("y = Less(a, b)", "float a = {1}, float b = {1}", Bounds(0, 0)),
        ("y = LessOrEqual(a, b)", "float a = {1}, float b = {1}", Bounds(1, 1)),
        ("y = Greater(a, b)", "float a = {2}, float b = {1}", Bounds(1, 1)),
        ("y = GreaterOrEqual(a, b)", "float a = {0}, float b = {1}", Bounds(0, 0)),
        ("c = Not(keep)  y = Where(c, a, b)", "float a = {1}, float b = {2}", Bounds(1, 2)),
        ("y = Where(c, a, b)", "bool c = {1}, float a = {1}, float b = {2}", Bounds(1, 1)),
        ("y = Abs(a)", "float[2] a = {-3, 2}", Bounds(0, 3)),
        ("y = Abs(a)", "float[2] a = {-3, -2}", Bounds(2, 3)),
        ("y = Cast<to = 7>(a)", "float a = {0.5}", Bounds(0, 1)),
        ("y = Cast<to = 9>(a)", "float[2] a = {0.5, 2}", Bounds(1, 1)),
        ("y = Sub(a, b)", "uint8 a = {1}, uint8 b = {2}", None),
        ("y = Shape(x)", "", Bounds(0, 2**48)),
        ("n = Size(x)  y = Range(a, n, b)", "int64 a = {3}, int64 b = {1}", Bounds(3, 3 + 2**48)),
        ("n = Size(x)  y = Range(a, n, b)", "int64 a = {3}, int64 b = {-1}", Bounds(3 - 2**48, 3)),
        (
            "s = Shape(x)  c = ConstantOfShape<value = float[1] {-2}>(s)  y = Trilu(c)",
            "",
            Bounds(-2, 0),
        ),
        ("y = Div(a, x)", "float a = {1}", None),
    ],
)
def test_bounds(parse, body, weights, expected):
    assert found(parse, body, weights) == expected


GRID = """s = Shape(x)  n = Size(x)  columns = Range(zero, n, one)  rows = Range(one, n, one)
    down = Unsqueeze(rows, end)"""
NUMBERS = (
    "int64 zero = {0}, int64 one = {1}, int64[1] end = {1}, float inf = {-inf}, float nil = {0}"
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Identity(columns)", Bounds(0, 0)),
        ("y = Unsqueeze(columns, end)", Bounds(0, 2**48)),
        ("y = LessOrEqual(columns, down)", Bounds(1, 1)),
        ("m = Greater(columns, down)  y = Where(m, inf, nil)", Bounds(0, 0)),
        ("m = Less(columns, down)  y = Where(m, inf, nil)", Bounds(0, 0, True, True)),
        ("ones = Expand(one, s)  y = Trilu<upper = 0>(ones)", Bounds(1, 1)),
        ("ones = Expand(one, s)  y = Trilu(ones)", Bounds(0, 1)),
        ("ones = Expand(one, s)  y = Trilu(ones, one)", Bounds(0, 0)),
        ("full = Expand(inf, s)  y = Trilu(full, one)", Bounds(0, 0)),
        ("full = Expand(inf, s)  y = Trilu<upper = 0>(full)", Bounds(0, 0, True, True)),
    ],
)
def test_bounds_of_the_first_of_each_row(parse, body, expected):
    assert found(parse, f"{GRID} {body}", NUMBERS, first_bounds) == expected


TABLE = "float[2,3] table = {0, -inf, -inf, 1, 2, -inf}"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("y = Slice(table, zero, end, one)", True),
        ("y = Slice(table, one, end, one)", False),
        ("y = Slice(table, zero, end, zero)", True),
        ("y = Slice(table, one, end, zero)", True),
        ("y = Gather<axis = 0>(table, whole)", True),
        ("y = Gather<axis = 1>(table, whole)", False),
        ("y = Transpose(table)", False),
        ("y = Unsqueeze(table, zero)", True),
        ("y = Unsqueeze(table, minus)", False),
        ("y = Reshape(table, wide)", True),
        ("y = Reshape(table, turned)", False),
    ],
)
def test_rows_keep_their_first_element(parse, body, kept):
    weights = "int64[1] zero = {0}, int64[1] one = {1}, int64[1] end = {9}, int64[1] minus = {-1}"
    shapes = "int64[3] wide = {1, 2, 3}, int64[2] turned = {3, 2}"
    first = found(parse, body, f"{TABLE}, {weights}, {shapes}", first_bounds)
    assert first == (Bounds(0, 1) if kept else Bounds(0, 2, True, True))


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
    operators = ["Add", "Sub", "Mul", "Max", "Neg", "Abs", "Where", "Trilu", "Equal", "Transpose"]
    for op_type in data.draw(st.lists(st.sampled_from(operators), min_size=1, max_size=4)):
        first, second = (data.draw(st.sampled_from(values)) for _ in range(2))
        if op_type == "Where":
            values.append(pattern.add("Where", keep, first, second))
        elif op_type in ("Neg", "Abs"):
            values.append(pattern.add(op_type, first))
        elif op_type == "Equal":
            values.append(pattern.add("Cast", pattern.add("Equal", first, second), to=1))
        elif op_type == "Trilu":
            wide = pattern.add("Expand", first, pattern.weight(np.array([2, 3], np.int64)))
            diagonal = pattern.weight(np.int64(data.draw(st.integers(-1, 2))))
            upper = data.draw(st.integers(0, 1))
            values.append(pattern.add("Trilu", wide, diagonal, upper=upper))
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
        site = Site(output.producer(), facts, 20)
        array = results[output.name].astype(np.float64)
        check_inside(bounds(site, output), array)
        check_inside(first_bounds(site, output), array[..., :1] if array.ndim else array)


def check_inside(known: Bounds | None, array: np.ndarray) -> None:
    if known is None:
        return
    finite = array[np.isfinite(array)]
    assert not np.isnan(array).any()
    assert (finite >= known.low).all()
    assert (finite <= known.high).all()
    assert known.infinite or np.isfinite(array).all()
    assert known.empty_rows or np.isfinite(np.atleast_1d(array)).any(axis=-1).all()
