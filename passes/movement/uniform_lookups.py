"""Look-ups that find the same everywhere.

    GatherElements(c, i)        ->  Expand(k, Shape(i))      c constant, all its elements k
    Expand(Expand(x, s), t)     ->  Expand(x, t)             if the result has the shape t
    Add(y, Gather(W, Expand(k, s)))  ->  Add(y, Gather(W, k))    if the sum has the same shape

The last holds along the first axis of a constant W, for one constant index k, and for every
operator that broadcasts: it is how a model without an input for token types adds the row of
type 0. All are exact; an index out of range, which is an error, is no longer looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.constants import constant
from leptonc.passes.rewriting.broadcasting import BROADCASTING, broadcast
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site

# Larger constants are not compared element by element.
_LARGEST = 1 << 16
_FIRST_OPSET = 13


def _only_element(value: ir.Value | None) -> np.generic | None:
    """Return the element that all of a constant are equal to, bit for bit, as a scalar."""
    tensor = constant(value)
    if tensor is None or not 0 < tensor.size <= _LARGEST or tensor.dtype == ir.DataType.STRING:
        return None
    flat = tensor.numpy().reshape(-1)
    return flat[0].copy() if flat.tobytes() == flat[:1].tobytes() * flat.size else None


def _uniform(site: Site) -> ir.Value | None:
    if site.opset < _FIRST_OPSET or _only_element(site.input(0)) is None:
        return None
    return site.input(1)


def _expanded(site: Site, match: ir.Value, build: Build) -> Rewritten:
    element = build.constant(np.asarray(_only_element(site.input(0))), "element")
    shape = build.op("Shape", [match])
    out = site.node.outputs[0]
    return {out: build.op("Expand", [element, shape], like=out)}


def _nested(site: Site) -> ir.Node | None:
    inner = site.producer(site.input(0), "Expand")
    if inner is None or site.opset < _FIRST_OPSET:
        return None
    target = site.input(1)
    dims = site.facts.symbolic(site.node.outputs[0])
    return inner if target and dims and site.facts.content(target) == dims else None


def _direct(site: Site, match: ir.Node, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    return {out: build.op("Expand", [match.inputs[0], site.input(1)], like=out)}


@dataclass(frozen=True)
class Row:
    """An operand that repeats one row of a table.

    Attributes:
        operand: Which input of the node it is.
        table: The constant that the row is of.
        index: Which row.
    """

    operand: int
    table: ir.Value
    index: int


def _row(site: Site) -> Row | None:
    values = list(site.node.inputs)
    if site.opset < _FIRST_OPSET or len(values) < 2:
        return None
    for operand, value in enumerate(values):
        gather = site.producer(value, "Gather")
        if gather is None or gather.attributes.get_int("axis", 0) != 0:
            continue
        table, index = gather.inputs[0], site.producer(gather.inputs[1], "Expand")
        tensor = constant(table)
        element = None if index is None else _only_element(index.inputs[0])
        if table is None or tensor is None or element is None:
            continue
        found = Row(operand, table, int(element))
        if _keeps_shape(site, found, tensor):
            return found
    return None


def _keeps_shape(site: Site, found: Row, table: ir.TensorProtocol) -> bool:
    shapes = [site.facts.symbolic(value) for value in site.node.inputs]
    whole = broadcast(shapes)
    gathered = shapes[found.operand]
    rows, rest = int(table.shape.numpy()[0]), len(table.shape) - 1
    if whole is None or gathered is None or not -rows <= found.index < rows:
        return False
    shapes[found.operand] = gathered[len(gathered) - rest :]
    return broadcast(shapes) == whole


def _take(site: Site, match: Row, build: Build) -> Rewritten:
    node, out = site.node, site.node.outputs[0]
    inputs = list(node.inputs)
    index = build.constant(np.asarray(match.index, np.int64), "row")
    inputs[match.operand] = build.op("Gather", [match.table, index], {"axis": 0})
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return {out: build.op(node.op_type, inputs, attributes, like=out)}


RULES = (
    Rule("look-up-uniform", ("GatherElements",), _uniform, None, _expanded),
    Rule("expand-chain", ("Expand",), _nested, None, _direct),
    Rule("look-up-row", BROADCASTING, _row, None, _take),
)
