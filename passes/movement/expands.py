"""Expands that change nothing, or that broadcasting does anyway.

    Expand(x, s)                ->  x              if x has the shape that it is expanded to
    Add(Expand(x, s), y)        ->  Add(x, y)      if the sum has the same shape without

The second holds for every operator that broadcasts. All are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.sizes import ONE, Size
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site

Sizes = tuple[Size, ...]

_FIRST_OPSET = 13

BROADCASTING = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "And", "Or", "Xor"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where"),
)


def broadcast(shapes: list[Sizes | None]) -> Sizes | None:
    """Return the shape that `shapes` broadcast to, or None when that is not known.

    A size other than 1 is the result where all others are 1, the same, or a name that must
    then be either.
    """
    if any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    rank = max(len(shape) for shape in known)
    result: list[Size] = []
    for axis in range(-rank, 0):
        sizes = [shape[axis] for shape in known if len(shape) >= -axis]
        wide = list(dict.fromkeys(size for size in sizes if size != ONE))
        fixed = [size for size in wide if size.number is not None]
        if len(wide) > 1 and len(fixed) != 1:
            return None
        result.append(fixed[0] if fixed else wide[0] if wide else ONE)
    return tuple(result)


def _same_shape(site: Site) -> ir.Value | None:
    source = site.input(0)
    dims = site.facts.symbolic(source)
    same = dims is not None and dims == site.facts.symbolic(site.node.outputs[0])
    return source if same and site.opset >= _FIRST_OPSET else None


def _drop(site: Site, match: ir.Value, build: Build) -> Rewritten:
    del build
    return {site.node.outputs[0]: match}


@dataclass(frozen=True)
class Needless:
    """Inputs of a broadcasting node, with what to read instead of its Expands."""

    inputs: tuple[ir.Value, ...]


def _needless(site: Site) -> Needless | None:
    values = [value for value in site.node.inputs if value is not None]
    if len(values) != len(site.node.inputs) or site.opset < _FIRST_OPSET:
        return None
    whole = broadcast([site.facts.symbolic(value) for value in values])
    if whole is None:
        return None
    bare = list(values)
    for index, value in enumerate(values):
        expand = site.producer(value, "Expand")
        if expand is None or expand.inputs[0] is None:
            continue
        others = [*bare[:index], expand.inputs[0], *bare[index + 1 :]]
        if broadcast([site.facts.symbolic(other) for other in others]) == whole:
            bare[index] = expand.inputs[0]
    return Needless(tuple(bare)) if bare != values else None


def _without(site: Site, match: Needless, build: Build) -> Rewritten:
    node, out = site.node, site.node.outputs[0]
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return {out: build.op(node.op_type, list(match.inputs), attributes, like=out)}


def all_true(value: ir.Value | None, site: Site) -> bool:
    """Whether every element of a boolean value is known to be True.

    Positions counted by Range from 0 are never negative, however they are reshaped.
    """
    tensor = site.tensor(value)
    if tensor is not None:
        return tensor.dtype == ir.DataType.BOOL and tensor.size > 0 and bool(tensor.numpy().all())
    compare = site.producer(value, "GreaterOrEqual")
    if compare is None or len(compare.inputs) != 2:
        return False
    bound = site.scalar(compare.inputs[1])
    return bound is not None and bound <= 0 and _counts(compare.inputs[0], site)


def _counts(value: ir.Value | None, site: Site) -> bool:
    while True:
        node = site.producer(value, "Unsqueeze", "Reshape", "Expand", "Cast", "Range", "Squeeze")
        if node is None:
            return False
        if node.op_type == "Cast":
            to = ir.DataType(node.attributes.get_int("to", 0))
            if to not in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.FLOAT):
                return False
        if node.op_type == "Range":
            start, step = site.scalar(node.inputs[0]), site.scalar(node.inputs[2])
            return start is not None and start >= 0 and step is not None and step > 0
        value = node.inputs[0]


def _and_true(site: Site) -> ir.Value | None:
    left, right = site.input(0), site.input(1)
    for certain, other in ((left, right), (right, left)):
        whole = site.facts.symbolic(site.node.outputs[0])
        if other is None or whole is None or whole != site.facts.symbolic(other):
            continue
        if all_true(certain, site):
            return other
    return None


def _no_obstacle(site: Site, match: object) -> str | None:
    del site, match
    return None


RULES = (
    Rule("expand-known", ("Expand",), _same_shape, _no_obstacle, _drop),
    Rule("expand-needless", BROADCASTING, _needless, _no_obstacle, _without),
    Rule("and-true", ("And",), _and_true, _no_obstacle, _drop),
)
