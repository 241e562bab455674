"""Arithmetic and logic with what changes nothing.

    x + 0  (whole numbers)      x - 0      x * 1      x / 1      ->  x
    Not(Not(x))    Or(x, False)    And(x, x)    Or(x, x)         ->  x

A constant counts if all of its elements are that number, and the result has the shape of x. A sum
of a float with 0 is left alone: -0 + 0 is 0. Exact.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from leptonc.passes.rewriting.rule import Rule, read_match
from leptonc.passes.rewriting.site import Site, commuted

# Larger constants take long to look at.
_MOST_ELEMENTS = 4096

_FIRST_OPSET = 7

_ONE = frozenset({"Mul", "Div"})


def _arithmetic(site: Site) -> ir.Value | None:
    node = site.node
    for x, other in commuted(node):
        if _is_neutral(site, node.op_type, other) and _keeps_shape(site, x, other):
            return x
    return None


def _is_neutral(site: Site, op_type: str, value: ir.Value) -> bool:
    tensor = site.tensor(value)
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return False
    if not 0 < tensor.size <= _MOST_ELEMENTS:
        return False
    if op_type == "Add" and tensor.dtype.is_floating_point():
        return False
    wanted = 1 if op_type in _ONE else 0
    array = tensor.numpy()
    if op_type == "Sub" and tensor.dtype.is_floating_point() and np.signbit(array).any():
        return False
    return bool((array == wanted).all())


def _keeps_shape(site: Site, x: ir.Value, other: ir.Value) -> bool:
    """Whether the result is known to have the shape of `x`."""
    if site.opset < _FIRST_OPSET:
        return False
    dims = site.facts.symbolic(x)
    known = dims is not None and dims == site.facts.symbolic(site.node.outputs[0])
    return known or site.facts.dims(other) == ()


def _repeated(site: Site) -> ir.Value | None:
    same = len(site.node.inputs) == 2 and site.node.inputs[0] is site.node.inputs[1]
    return site.input(0) if same else None


def _twice_not(site: Site) -> ir.Value | None:
    inner = site.producer(site.input(0), "Not")
    return None if inner is None else inner.inputs[0]


_OPERATORS = ("Add", "Sub", "Mul", "Div", "Or")

RULES = (
    Rule("neutral-element", _OPERATORS, _arithmetic, None, read_match),
    Rule("same-condition", ("And", "Or"), _repeated, None, read_match),
    Rule("not-not", ("Not",), _twice_not, None, read_match),
)
