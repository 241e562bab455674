"""The dimensions of results by name: what follows, and what does not."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.facts.sizes import Size, number, symbol

N, M, PAST = symbol("n"), symbol("m"), symbol("past")

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'
INPUTS = "float[n,2,3] a, float[m,2,3] b, float[1,2,3] one, float[past,n] p, float[1,n,4,4] image"


def sizes(parse, body: str, weights: str = "") -> tuple[Size, ...] | None:
    """Return what is known of the dimensions of `y`."""
    model: ir.Model = parse(f"{HEADER} g ({INPUTS}) => (y) <{weights}> {{ {body} }}")
    value = next(value for node in model.graph for value in node.outputs if value.name == "y")
    return infer_facts(model).symbolic(value)


@pytest.mark.parametrize(
    ("equation", "inputs", "expected"),
    [
        ("nij,nkj->nik", "a, a", (N, number(2), number(2))),
        ("nij, mkj -> mnik", "a, b", (M, N, number(2), number(2))),
        ("nij,nkj->nik", "a, one", (N, number(2), number(2))),
        ("nij->jn", "a", (number(3), N)),
        ("nij->", "a", ()),
    ],
)
def test_an_einsum_names_its_axes(parse, equation, inputs, expected):
    assert sizes(parse, f'y = Einsum<equation = "{equation}">({inputs})') == expected


def test_an_einsum_of_two_names_is_neither(parse):
    found = sizes(parse, 'y = Einsum<equation = "nij,nkj->nik">(a, b)')
    assert found is not None
    assert found[0] not in (N, M)


@pytest.mark.parametrize("equation", ["...ij,...kj->...ik", "nij,nkj"])
def test_an_equation_that_is_not_plain_says_nothing(parse, equation):
    found = sizes(parse, f'y = Einsum<equation = "{equation}">(a, a)')
    assert found is None or N not in found


RANGE = """s = Shape(p)  start = Gather(s, first)  rows = Gather(s, second)  end = Add(start, rows)
    y = Range({}, {}, {})"""
NUMBERS = "int64 first = {0}, int64 second = {1}, int64 two = {2}"


@pytest.mark.parametrize(
    ("start", "end", "step", "expected"),
    [
        ("first", "rows", "second", (N,)),
        ("start", "end", "second", (N,)),
        ("first", "end", "second", (N.plus(PAST),)),
    ],
)
def test_a_range_is_as_long_as_what_it_counts(parse, start, end, step, expected):
    assert sizes(parse, RANGE.format(start, end, step), NUMBERS) == expected


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [("end", "start", "second"), ("start", "rows", "second"), ("first", "rows", "two")],
)
def test_a_range_of_unknown_length(parse, start, end, step):
    found = sizes(parse, RANGE.format(start, end, step), NUMBERS)
    assert found is None or (len(found) == 1 and found[0] not in (N, PAST))


RESIZE = """s = Shape<start = 0, end = 2>(image)  c = Concat<axis = 0>(s, wide)
    y = Resize{}(image, , , {})"""
WIDE = "int64[2] wide = {2, 6}"


def test_a_resize_to_named_sizes(parse):
    assert sizes(parse, RESIZE.format("", "c"), WIDE) == (number(1), N, number(2), number(6))


@pytest.mark.parametrize(
    "attributes", ["<axes = [0, 1, 3, 2]>", '<keep_aspect_ratio_policy = "not_larger">']
)
def test_a_resize_that_takes_its_sizes_another_way(parse, attributes):
    found = sizes(parse, RESIZE.format(attributes, "c"), WIDE)
    assert found is None or found[2:] != (number(2), number(6))
