"""Reads an activation as a polynomial, whatever the order in which it is written.

An activation like GELU is a polynomial in its input `x` and in one function `t` of `x`:

    x*0.5*(1 + t)  =  0.5*x + 0.5*x*t        t = erf(x / sqrt(2))

and the argument of that function is a polynomial in `x` again. Exporters write the same one as
`0.5*(x*(1 + t))`, `(x/2)*(t + 1)`, `x*(0.5 + 0.5*t)`; and `x^3` as Pow or as products. Multiplied
out, they have the same coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.rewriting.scalars import FLOATS, is_near, number
from leptonc.passes.rewriting.site import Site, commuted

# For each power of x and of t that occurs its coefficient.
Polynomial = Mapping[tuple[int, int], float]

_MOST_NODES = 16
_HIGHEST_POWER = 4
_JOINING = ("Add", "Sum", "Sub", "Mul", "Div", "Pow", "Neg", "Cast")


@dataclass(frozen=True)
class Activation:
    """What was read from an anchor.

    Attributes:
        x: The input.
        function: The node that computes `t`.
        nodes: All between `x` and the anchor, without the anchor.
        outer: The anchor's output as a polynomial in `x` and `t`.
        inner: The argument of the function as a polynomial in `x`.
    """

    x: ir.Value
    function: ir.Node
    nodes: tuple[ir.Node, ...]
    outer: Polynomial
    inner: Polynomial


def same(found: Polynomial, expected: Polynomial, dtype: ir.DataType | None) -> bool:
    """Whether two polynomials are one, but for the rounding of their constants."""
    return found.keys() == expected.keys() and all(
        is_near(found[power], factor, dtype) for power, factor in expected.items()
    )


def activations(site: Site, *functions: str) -> list[Activation]:
    """Return every way to read the anchor as a polynomial in a value and a function of it."""
    found = []
    for function in _upstream(site, site.node.outputs[0], functions):
        argument = function.inputs[0]
        if argument is None:
            continue
        t = function.outputs[0]
        for x in _candidates(site, argument):
            outer = _Reader(site, {x: (1, 0), t: (0, 1)}, [])
            inner = _Reader(site, {x: (1, 0)}, [])
            around, inside = outer.read(site.node.outputs[0]), inner.read(argument)
            if around is None or inside is None:
                continue
            nodes = dict.fromkeys((*outer.nodes, *inner.nodes, function))
            nodes.pop(site.node, None)
            found.append(Activation(x, function, tuple(nodes), around, inside))
    return found


def _upstream(site: Site, start: ir.Value, functions: tuple[str, ...]) -> list[ir.Node]:
    """Return the nodes of `functions` before `start` with only arithmetic between."""
    pending, found = [start], []
    for value in pending:
        node = site.producer(value, *functions, *_JOINING)
        if node is None or len(pending) > _MOST_NODES:
            continue
        if node.op_type in functions:
            found.append(node)
            continue
        pending.extend(i for i in node.inputs if i is not None and i not in pending)
    return found


def _candidates(site: Site, argument: ir.Value) -> list[ir.Value]:
    """Return the values that the argument of a function may be a polynomial of, nearest first."""
    pending = [argument]
    for value in pending:
        node = site.producer(value, *_JOINING)
        if node is not None and len(pending) <= _MOST_NODES:
            pending.extend(i for i in node.inputs if i is not None and i not in pending)
    return [value for value in pending if site.tensor(value) is None]


@dataclass(frozen=True)
class _Reader:
    """Reads values as polynomials.

    Attributes:
        site: Where.
        variables: The values to stop at, with their powers of x and t.
        nodes: Collects the nodes that were read.
    """

    site: Site
    variables: Mapping[ir.Value, tuple[int, int]]
    nodes: list[ir.Node]

    def read(self, value: ir.Value | None) -> Polynomial | None:
        """Return `value` as a polynomial, or None when it is none."""
        if value is None:
            return None
        if value in self.variables:
            return {self.variables[value]: 1.0}
        constant = number(self.site, value, next(iter(self.variables)))
        if constant is not None:
            return {(0, 0): constant} if constant else {}
        node = self.site.producer(value, *_JOINING)
        if node is None or len(self.nodes) >= _MOST_NODES:
            return None
        self.nodes.append(node)
        return self._computed(node)

    def _computed(self, node: ir.Node) -> Polynomial | None:
        if node.op_type == "Cast":
            return self._cast(node)
        left = self.read(node.inputs[0])
        if left is None:
            return None
        if node.op_type == "Neg":
            return {power: -factor for power, factor in left.items()}
        if node.op_type == "Pow":
            return _power(left, number(self.site, node.inputs[1], next(iter(self.variables))))
        if not commuted(node):
            return None
        right = self.read(node.inputs[1])
        if right is None:
            return None
        if node.op_type == "Mul":
            return _times(left, right)
        if node.op_type == "Div":
            divisor = right.get((0, 0), 0.0)
            return _times(left, {(0, 0): 1 / divisor}) if len(right) == 1 and divisor else None
        return _plus(left, right, -1.0 if node.op_type == "Sub" else 1.0)

    def _cast(self, node: ir.Node) -> Polynomial | None:
        """Look through a change of precision; a cast to or from an integer computes something."""
        facts = self.site.facts
        if facts.dtype(node.inputs[0]) in FLOATS and facts.dtype(node.outputs[0]) in FLOATS:
            return self.read(node.inputs[0])
        return None


def _plus(left: Polynomial, right: Polynomial, sign: float) -> Polynomial:
    total = dict(left)
    for power, factor in right.items():
        total[power] = total.get(power, 0.0) + sign * factor
    return {power: factor for power, factor in total.items() if factor}


def _times(left: Polynomial, right: Polynomial) -> Polynomial | None:
    total: dict[tuple[int, int], float] = {}
    for (x, t), a in left.items():
        for (more_x, more_t), b in right.items():
            power = (x + more_x, t + more_t)
            if sum(power) > _HIGHEST_POWER:
                return None
            total[power] = total.get(power, 0.0) + a * b
    return total


def _power(base: Polynomial, exponent: float | None) -> Polynomial | None:
    if exponent not in (2.0, 3.0):
        return None
    square = _times(base, base)
    return _times(square, base) if square is not None and exponent == 3.0 else square
