"""Transposes of all operands, made one behind the operator.

    f(Transpose(a, p), Transpose(b, p))              ->  Transpose(f(a, b), p)
    Concat(Transpose(a, p), ...) along axis k        ->  Transpose(Concat(a, ...), p) along p[k]

f is an elementwise operator of two operands, broadcast or not: both have as many dimensions as p
has axes, so what was aligned stays aligned. Each Transpose is read only there, so that at least
one node goes. The one that is left has sunk towards others to cancel with. Exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.graph.insertion import AttributeValue
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site

_BINARY = (
    *("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal"),
    *("Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
)
# The opset from which the operators broadcast as NumPy does.
_FIRST_OPSET = 7


@dataclass(frozen=True)
class Operands:
    """The Transposes in front of an operator.

    Attributes:
        nodes: One for each operand; the same may stand for several.
        order: p of all of them.
    """

    nodes: tuple[ir.Node, ...]
    order: tuple[int, ...]


def _pattern(site: Site) -> Operands | None:
    if site.opset < _FIRST_OPSET or len(site.node.inputs) < 2:
        return None
    nodes: list[ir.Node] = []
    for value in site.node.inputs:
        node = site.producer(value, "Transpose")
        if node is None:
            return None
        nodes.append(node)
    orders = {tuple(node.attributes.get_ints("perm") or ()) for node in nodes}
    if len(orders) > 1 or not all(orders) or len(set(nodes)) < 2:
        return None
    return Operands(tuple(nodes), orders.pop())


def _check(site: Site, match: Operands) -> str | None:
    for node in match.nodes:
        reason = site.read_elsewhere(node.outputs[0], (site.node,))
        if reason is not None:
            return reason
    return None


def _rewrite(site: Site, match: Operands, build: Build) -> Rewritten:
    node, out = site.node, site.node.outputs[0]
    attributes: dict[str, AttributeValue] = {}
    if node.op_type == "Concat":
        attributes["axis"] = match.order[node.attributes.get_int("axis", 0)]
    joined = build.op(node.op_type, [each.inputs[0] for each in match.nodes], attributes)
    return {out: build.op("Transpose", [joined], {"perm": match.order}, like=out)}


RULES = (Rule("transposes-join", (*_BINARY, "Concat"), _pattern, _check, _rewrite),)
