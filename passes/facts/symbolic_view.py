"""What is known by name of values, and how a node sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from leptonc.passes.facts.sizes import Size, number, symbol
from leptonc.passes.graph.constants import constant, constant_ints

Sizes = tuple[Size, ...]

# Longer vectors are no shapes.
LONGEST = 64


def own(value: ir.Value, axis: int) -> Size:
    """Return a size that equals no other: no model can name a dimension like this."""
    return symbol(f"\0{value.name}.{axis}")


@dataclass
class Symbolic:
    """What is known by name of the values of a model.

    Attributes:
        sizes: The dimensions of a value.
        contents: The elements of an INT64 vector, or of a scalar, that is computed from sizes.
    """

    sizes: dict[ir.Value, Sizes] = field(default_factory=dict)
    contents: dict[ir.Value, Sizes] = field(default_factory=dict)

    def dims(self, value: ir.Value | None) -> Sizes | None:
        """Return the dimensions of `value`, or None when its rank is not known."""
        tensor = constant(value)
        if tensor is not None:
            return tuple(number(int(size)) for size in tensor.shape.numpy())
        return None if value is None else self.sizes.get(value)

    def content(self, value: ir.Value | None) -> Sizes | None:
        """Return the elements of an INT64 scalar or vector, or None when they are not known."""
        if value is None:
            return None
        if value in self.contents:
            return self.contents[value]
        tensor = constant(value)
        if tensor is None or tensor.dtype != ir.DataType.INT64 or len(tensor.shape) > 1:
            return None
        if tensor.size > LONGEST:
            return None
        return tuple(number(item) for item in constant_ints(value) or ())

    def ints(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Return what `content` does when all elements are numbers."""
        found = self.content(value)
        if found is None:
            return None
        numbers = tuple(size.number for size in found if size.number is not None)
        return numbers if len(numbers) == len(found) else None

    def is_scalar(self, value: ir.Value | None) -> bool:
        """Whether `value` has rank 0."""
        return self.dims(value) == ()


@dataclass(frozen=True)
class View:
    """A node and what is known of its inputs."""

    node: ir.Node
    known: Symbolic

    def value(self, index: int) -> ir.Value | None:
        """Return an input, or None when it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def dims(self, index: int) -> Sizes | None:
        """Return the dimensions of an input."""
        return self.known.dims(self.value(index))

    def content(self, index: int) -> Sizes | None:
        """Return the elements of an input."""
        return self.known.content(self.value(index))

    def ints(self, index: int) -> tuple[int, ...] | None:
        """Return the elements of an input when all are numbers."""
        return self.known.ints(self.value(index))

    def own(self, axis: int) -> Size:
        """Return a size that equals no other: axis `axis` of this node's output."""
        return own(self.node.outputs[0], axis)
