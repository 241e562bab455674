"""Between which numbers a mask lies, which decides what becomes of a row without any key.

    softmax over a row of -inf          NaN
    softmax over a row of one number    every key weighs the same, however low the number is

Operators for attention agree with that or not, so what a mask may hold has to be known. Bounds
are followed from constants and booleans through what exporters build masks of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from leptonc.passes.site import Site

_NO_NUMBERS = frozenset({ir.DataType.STRING, ir.DataType.BOOL})

# Larger constants are no masks, and take long to look at.
_MOST_ELEMENTS = 1 << 24

# Masks are built of fewer operators than this, one after the other.
_MOST_STEPS = 24


@dataclass(frozen=True)
class Bounds:
    """What the elements of a tensor may be.

    Attributes:
        low: No finite element is lower.
        high: No element is higher.
        infinite: Whether an element may be -inf.
        empty_rows: Whether all elements of a row may be.
    """

    low: float
    high: float
    infinite: bool = False
    empty_rows: bool = False

    def joined(self, other: Bounds) -> Bounds:
        """Return the bounds of a tensor whose elements come from either."""
        infinite = self.infinite or other.infinite
        return Bounds(min(self.low, other.low), max(self.high, other.high), infinite, infinite)

    def plus(self, other: Bounds) -> Bounds:
        """Return the bounds of the sum."""
        empty = self.empty_rows or other.empty_rows or (self.infinite and other.infinite)
        return Bounds(
            self.low + other.low,
            self.high + other.high,
            self.infinite or other.infinite,
            empty,
        )

    def times(self, other: Bounds) -> Bounds | None:
        """Return the bounds of the product, of finite numbers only."""
        if self.infinite or other.infinite:
            return None
        corners = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Bounds(min(corners), max(corners))

    def scattered(self) -> Bounds:
        """Return the bounds when elements move between rows, or leave them."""
        return Bounds(self.low, self.high, self.infinite, self.infinite)


def bounds(site: Site, value: ir.Value | None, steps: int = _MOST_STEPS) -> Bounds | None:
    """Return between which numbers `value` lies whatever the inputs are, or None."""
    if value is None or steps == 0:
        return None
    tensor = site.tensor(value)
    if tensor is not None:
        return _of_constant(tensor)
    node = site.producer(value)
    rule = None if node is None or node.domain else _RULES.get(node.op_type)
    found = None if node is None or rule is None else rule(site, node, steps - 1)
    return None if found is None else within(found, site.facts.dtype(value))


def within(found: Bounds, dtype: ir.DataType | None) -> Bounds | None:
    """Return `found` in numbers of `dtype`, or None when one within it might overflow."""
    if dtype is None or dtype in _NO_NUMBERS:
        return None
    limit = float(dtype.max)
    # What is nearer to the largest number than half of its last place is rounded to it.
    reach = limit * (1 + float(dtype.eps) / 4) if dtype.is_floating_point() else limit
    if found.high > reach or found.low < -reach:
        return None
    low, high = max(found.low, -limit), min(found.high, limit)
    if dtype.is_floating_point():
        # Rounding keeps the order: what lies between two numbers lies between the two rounded.
        low, high = (float(np.float64(end).astype(dtype.numpy())) for end in (low, high))
    return replace(found, low=low, high=high)


def _of_constant(tensor: ir.TensorProtocol) -> Bounds | None:
    if tensor.dtype == ir.DataType.STRING or not 0 < tensor.size <= _MOST_ELEMENTS:
        return None
    array = tensor.numpy().astype(np.float64)
    finite = np.isfinite(array)
    if np.isnan(array).any() or (array == np.inf).any():
        return None
    if not finite.any():
        return Bounds(0.0, 0.0, infinite=True, empty_rows=True)
    rows = finite if finite.ndim else finite.reshape(1)
    low, high = float(array[finite].min()), float(array[finite].max())
    return Bounds(low, high, not finite.all(), not bool(rows.any(axis=-1).all()))


_Rule = Callable[[Site, ir.Node, int], "Bounds | None"]


def _same(site: Site, node: ir.Node, steps: int) -> Bounds | None:
    return bounds(site, node.inputs[0], steps)


def _moved(site: Site, node: ir.Node, steps: int) -> Bounds | None:
    found = bounds(site, node.inputs[0], steps)
    return None if found is None else found.scattered()


def _either(site: Site, node: ir.Node, steps: int) -> Bounds | None:
    parts = node.inputs[1:] if node.op_type == "Where" else node.inputs
    result: Bounds | None = None
    for part in parts:
        found = bounds(site, part, steps)
        if found is None:
            return None
        result = found.scattered() if result is None else result.joined(found)
    return result


def _sum(site: Site, node: ir.Node, steps: int) -> Bounds | None:
    left, right = (bounds(site, value, steps) for value in node.inputs)
    if left is None or right is None:
        return None
    if node.op_type == "Sub":
        if right.infinite:
            return None
        right = Bounds(-right.high, -right.low)
    return left.plus(right)


def _product(site: Site, node: ir.Node, steps: int) -> Bounds | None:
    left, right = (bounds(site, value, steps) for value in node.inputs)
    return None if left is None or right is None else left.times(right)


def _negative(site: Site, node: ir.Node, steps: int) -> Bounds | None:
    found = bounds(site, node.inputs[0], steps)
    return None if found is None or found.infinite else Bounds(-found.high, -found.low)


def _cast(site: Site, node: ir.Node, steps: int) -> Bounds | None:
    dtype = site.facts.dtype(node.inputs[0])
    if dtype == ir.DataType.BOOL:
        return Bounds(0.0, 1.0)
    return bounds(site, node.inputs[0], steps)


def _filled(site: Site, node: ir.Node, steps: int) -> Bounds | None:
    del site, steps
    attribute = node.attributes.get("value")
    if attribute is None:
        return Bounds(0.0, 0.0)
    return _of_constant(attribute.as_tensor())


def _greatest(site: Site, node: ir.Node, steps: int) -> Bounds | None:
    """Max is as high as the highest, and at least as low as every finite one."""
    parts = [bounds(site, value, steps) for value in node.inputs]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or not known:
        return None
    floors = [part.low if not part.infinite else -math.inf for part in known]
    infinite = all(part.infinite for part in known)
    low = min(part.low for part in known) if infinite else max(floors)
    return Bounds(low, max(part.high for part in known), infinite, infinite)


_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("Identity", "Unsqueeze"), _same),
    **dict.fromkeys(("Reshape", "Squeeze", "Flatten", "Transpose", "Slice"), _moved),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "Expand", "Tile"), _moved),
    **dict.fromkeys(("Where", "Concat"), _either),
    **dict.fromkeys(("Add", "Sub"), _sum),
    "Mul": _product,
    "Neg": _negative,
    "Cast": _cast,
    "ConstantOfShape": _filled,
    "Max": _greatest,
}
