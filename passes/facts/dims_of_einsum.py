"""The equation of an Einsum, and the dimensions of its result."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.sizes import ONE, Size
from leptonc.passes.facts.symbolic_view import Sizes, View


@dataclass(frozen=True)
class Equation:
    """What an Einsum computes.

    Attributes:
        operands: The letters of each operand, one for each axis, none twice.
        result: Those of the result.
    """

    operands: tuple[str, ...]
    result: str


def read_equation(node: ir.Node) -> Equation | None:
    """Return the equation of `node`, or None when it is no plain one.

    Plain equations name each axis, say what the result is, and take no diagonals.
    """
    text = (node.attributes.get_string("equation") or "").replace(" ", "")
    left, arrow, result = text.partition("->")
    operands = tuple(left.split(","))
    plain = all(part.isalpha() and len(set(part)) == len(part) for part in (*operands, result))
    return Equation(operands, result) if arrow and plain else None


def einsum(view: View) -> Sizes | None:
    """Return the dimensions of the result."""
    equation = read_equation(view.node)
    if equation is None or len(equation.operands) != len(view.node.inputs):
        return None
    sizes: dict[str, set[Size]] = {}
    for index, letters in enumerate(equation.operands):
        dims = view.dims(index)
        if dims is None or len(dims) != len(letters):
            return None
        for letter, size in zip(letters, dims, strict=True):
            sizes.setdefault(letter, set()).add(size)
    result = []
    for axis, letter in enumerate(equation.result):
        # A 1 is stretched, as in broadcasting.
        wide = sizes.get(letter, set()) - {ONE}
        result.append(ONE if not wide else wide.pop() if len(wide) == 1 else view.own(axis))
    return tuple(result)
