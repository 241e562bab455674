"""Integers that follow from shapes alone: Shape, and the arithmetic that exporters do on it.

For `x` of shape `[batch, 12, 64]`, `Shape(x)` is `[?, 12, 64]`: not a constant, but
`Gather(Shape(x), 1)` is, and so is what is computed from it. Only INT64 values of rank 0 and 1
are followed; `None` stands for an element that is known only when the model runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.facts import Facts
from leptonc.passes.graph.constants import constant, constant_ints
from leptonc.passes.graph.operators import has_plain_attributes

# Longer vectors are no shapes.
_LONGEST = 64

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class Ints:
    """A vector of integers, or one integer, some of which may be unknown.

    Attributes:
        items: The elements; None where unknown.
        scalar: True for rank 0, and then there is one element.
    """

    items: tuple[int | None, ...]
    scalar: bool

    @property
    def complete(self) -> bool:
        """Whether every element is known."""
        return None not in self.items


Known = Mapping[ir.Value, Ints]


@dataclass(frozen=True)
class Reader:
    """A node, whose inputs it reads as `Ints` from what is known and from constants.

    Attributes:
        node: The node.
        facts: The shapes.
        known: What was found for the nodes before.
    """

    node: ir.Node
    facts: Facts
    known: Known

    def ints(self, index: int) -> Ints | None:
        """Return what input `index` holds, as far as it is known."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        if value is None:
            return None
        if value in self.known:
            return self.known[value]
        tensor = constant(value)
        if tensor is None or tensor.dtype != ir.DataType.INT64 or len(tensor.shape) > 1:
            return None
        items = constant_ints(value)
        return None if items is None else Ints(items, scalar=len(tensor.shape) == 0)


Rule = Callable[[Reader], "Ints | None"]


def known_ints(node: ir.Node, facts: Facts, known: Known, opset: int) -> Ints | None:
    """Return what `node` computes, as far as it follows from shapes and constants.

    Args:
        node: Any node.
        facts: The shapes.
        known: What was found for the nodes before.
        opset: The version of the standard domain.
    """
    rule = _RULES.get(node.op_type)
    if rule is None or node.domain or opset < _FIRST_OPSET or len(node.outputs) != 1:
        return None
    if not node.inputs or not has_plain_attributes(node):
        return None
    found = rule(Reader(node, facts, known))
    if found is None or len(found.items) > _LONGEST:
        return None
    fits = all(item is None or -_INT64_MAX <= item <= _INT64_MAX for item in found.items)
    return found if fits else None


# From here on Squeeze, Unsqueeze and Slice take their axes as inputs.
_FIRST_OPSET = 13


def _shape(read: Reader) -> Ints | None:
    dims = read.facts.dims(read.node.inputs[0])
    if dims is None:
        return None
    start, end = (
        read.node.attributes.get_int("start", 0),
        read.node.attributes.get_int("end", len(dims)),
    )
    return Ints(dims[_clamp(start, len(dims)) : _clamp(end, len(dims))], scalar=False)


def _clamp(position: int, length: int) -> int:
    return min(max(position + length if position < 0 else position, 0), length)


def _size(read: Reader) -> Ints | None:
    dims = read.facts.static(read.node.inputs[0])
    return None if dims is None else Ints((math.prod(dims),), scalar=True)


def _gather(read: Reader) -> Ints | None:
    data, indices = read.ints(0), read.ints(1)
    if data is None or indices is None or data.scalar:
        return None
    length = len(data.items)
    picked: list[int | None] = []
    for index in indices.items:
        if index is None or not -length <= index < length:
            return None
        picked.append(data.items[index])
    return Ints(tuple(picked), scalar=indices.scalar)


def _slice(read: Reader) -> Ints | None:
    data, starts, ends = (read.ints(index) for index in range(3))
    if data is None or data.scalar or starts is None or ends is None:
        return None
    stepped = len(read.node.inputs) > 4 and read.node.inputs[4] is not None
    steps = read.ints(4) if stepped else Ints((1,), scalar=False)
    if steps is None or steps.items != (1,) or len(starts.items) != 1 or len(ends.items) != 1:
        return None
    start, end = starts.items[0], ends.items[0]
    if start is None or end is None:
        return None
    length = len(data.items)
    return Ints(data.items[_clamp(start, length) : _clamp(end, length)], scalar=False)


def _concat(read: Reader) -> Ints | None:
    parts = [read.ints(index) for index in range(len(read.node.inputs))]
    items: list[int | None] = []
    for part in parts:
        if part is None or part.scalar:
            return None
        items.extend(part.items)
    return Ints(tuple(items), scalar=False)


def _unsqueeze(read: Reader) -> Ints | None:
    data, axes = read.ints(0), read.ints(1)
    if data is None or not data.scalar or axes is None or len(axes.items) != 1:
        return None
    return Ints(data.items, scalar=False)


def _squeeze(read: Reader) -> Ints | None:
    data = read.ints(0)
    if data is None or data.scalar or len(data.items) != 1:
        return None
    return Ints(data.items, scalar=True)


def _cast(read: Reader) -> Ints | None:
    same = read.node.attributes.get_int("to") == ir.DataType.INT64.value
    return read.ints(0) if same else None


def _identity(read: Reader) -> Ints | None:
    return read.ints(0)


def _elementwise(compute: Callable[[int, int], int]) -> Rule:
    def rule(read: Reader) -> Ints | None:
        left, right = read.ints(0), read.ints(1)
        if left is None or right is None:
            return None
        length = max(len(left.items), len(right.items))
        if min(len(left.items), len(right.items)) not in (1, length):
            return None
        items: list[int | None] = []
        for index in range(length):
            a = left.items[index % len(left.items)]
            b = right.items[index % len(right.items)]
            items.append(None if a is None or b is None else compute(a, b))
        return Ints(tuple(items), scalar=left.scalar and right.scalar)

    return rule


_RULES: dict[str, Rule] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Cast": _cast,
    "Identity": _identity,
    "Add": _elementwise(lambda a, b: a + b),
    "Sub": _elementwise(lambda a, b: a - b),
    "Mul": _elementwise(lambda a, b: a * b),
}
