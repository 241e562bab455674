"""Masks that are repeated before they are added, although the sum repeats them anyway.

A mask of the keys alone is the same for every row of scores. Exporters write one for each row all
the same, by And with a condition that always holds, or by Expand:

    scores + Where(And(true[S, 1], keep[B, 1, 1, S]), 0, low)
                                        ->  scores + Where(keep[B, 1, 1, S], 0, low)

Element by element operators with constants of one element may stand between. The sum must have
the shape that it had; every operator that broadcasts does for one. Exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.sizes import Size
from leptonc.passes.rewriting.broadcasting import BROADCASTING, all_true, broadcast
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.reuse import Operand, once
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site, commuted

_FIRST_OPSET = 13

# Nobody puts more operators between a mask and the scores.
_MOST_STEPS = 8

_UNARY = frozenset({"Cast", "Not", "Neg"})
_BINARY = frozenset({"Mul", "Add", "Sub", "Div"})


@dataclass(frozen=True)
class Narrow:
    """A value before it was repeated.

    Attributes:
        source: The narrow mask.
        dims: Its dimensions.
        steps: The nodes that are applied to it, with the place of the running input.
    """

    source: ir.Value
    dims: tuple[Size, ...]
    steps: tuple[tuple[ir.Node, int], ...]


@dataclass(frozen=True)
class Widened:
    """An operand that need not be repeated."""

    place: int
    narrow: Narrow


def _widened(site: Site) -> Widened | None:
    values = [value for value in site.node.inputs if value is not None]
    if len(values) != len(site.node.inputs) or site.opset < _FIRST_OPSET:
        return None
    shapes = [site.facts.symbolic(value) for value in values]
    whole = broadcast(shapes)
    if whole is None:
        return None
    for place, value in enumerate(values):
        narrow = _narrow(site, value)
        if narrow is None:
            continue
        others = [*shapes[:place], narrow.dims, *shapes[place + 1 :]]
        if broadcast(others) == whole:
            return Widened(place, narrow)
    return None


def _narrow(site: Site, value: ir.Value) -> Narrow | None:
    steps: list[tuple[ir.Node, int]] = []
    running: ir.Value | None = value
    while len(steps) < _MOST_STEPS:
        source = _repeated(site, running)
        if source is not None:
            dims = site.facts.symbolic(source)
            return None if dims is None else Narrow(source, dims, tuple(reversed(steps)))
        node = site.producer(running)
        place = None if node is None else _elementwise(site, node)
        if node is None or place is None:
            return None
        steps.append((node, place))
        running = node.inputs[place]
    return None


def _repeated(site: Site, value: ir.Value | None) -> ir.Value | None:
    """Return what `value` only repeats, or None."""
    node = site.producer(value, "And", "Expand")
    if node is None:
        return None
    if node.op_type == "Expand":
        return node.inputs[0]
    for certain, other in commuted(node):
        if all_true(certain, site):
            return other
    return None


def _elementwise(site: Site, node: ir.Node) -> int | None:
    """Return the one input of `node` that is not a constant of one element, or None."""
    if node.domain or len(node.outputs) != 1:
        return None
    if node.op_type in _UNARY:
        return 0
    if node.op_type not in _BINARY and node.op_type != "Where":
        return None
    varying = [index for index, value in enumerate(node.inputs) if not _is_single(site, value)]
    return varying[0] if len(varying) == 1 else None


def _is_single(site: Site, value: ir.Value | None) -> bool:
    tensor = site.tensor(value)
    return tensor is not None and tensor.size == 1


def _rebuild(site: Site, match: Widened, build: Build) -> Rewritten:
    node, out = site.node, site.node.outputs[0]
    value = match.narrow.source
    for step, place in match.narrow.steps:
        operands: list[Operand] = [*step.inputs[:place], value, *step.inputs[place + 1 :]]
        attributes = {name: attribute.value for name, attribute in step.attributes.items()}
        value = once(site, build, step.op_type, operands, attributes, place=place)
    inputs = [*node.inputs[: match.place], value, *node.inputs[match.place + 1 :]]
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return {out: build.op(node.op_type, inputs, attributes, like=out)}


RULES = (Rule("widened-mask", BROADCASTING, _widened, None, _rebuild),)
