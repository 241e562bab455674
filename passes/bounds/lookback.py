"""Looks back through a graph for the bounds of a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from leptonc.passes.bounds.interval import Bounds, of_constant, within
from leptonc.passes.rewriting.site import Site

# Masks are built of fewer operators than this, one after the other.
_MOST_STEPS = 24

# Booleans count as 0 and 1.
FALSE, TRUE, EITHER = Bounds(0.0, 0.0), Bounds(1.0, 1.0), Bounds(0.0, 1.0)

Rule = Callable[["Look", ir.Node], "Bounds | None"]


@dataclass(frozen=True)
class Look:
    """One look back through a graph.

    Attributes:
        site: From where.
        first: Whether only the first element of each row matters.
        rules: What becomes of bounds, by operator.
        steps: How many nodes may still follow.
        seen: What is known already.
    """

    site: Site
    first: bool
    rules: Mapping[str, Rule]
    steps: int = _MOST_STEPS
    seen: dict[ir.Value, Bounds | None] = field(default_factory=dict)

    def at(self, value: ir.Value | None) -> Bounds | None:
        """Return the bounds of `value`."""
        if value is None:
            return None
        if value not in self.seen:
            self.seen[value] = self._found(value)
        return self.seen[value]

    def whole(self, value: ir.Value | None) -> Bounds | None:
        """Return the bounds of all elements of `value`."""
        return replace(self, first=False, seen={}).at(value) if self.first else self.at(value)

    def _found(self, value: ir.Value) -> Bounds | None:
        dtype = self.site.facts.dtype(value)
        unknown = EITHER if dtype == ir.DataType.BOOL else None
        if self.steps == 0:
            return unknown
        tensor = self.site.tensor(value)
        if tensor is not None:
            return of_constant(tensor, first=self.first)
        node = self.site.producer(value)
        rule = None if node is None or node.domain else self.rules.get(node.op_type)
        if node is None or rule is None:
            return unknown
        found = rule(replace(self, steps=self.steps - 1), node)
        return unknown if found is None else within(found, dtype)
