"""What becomes of bounds in operators that compute each element by itself."""

from __future__ import annotations

import math

import onnx_ir as ir

from leptonc.passes.bounds.interval import Bounds
from leptonc.passes.bounds.lookback import EITHER, FALSE, TRUE, Look, Rule
from leptonc.passes.rewriting.site import commuted


def _where(look: Look, node: ir.Node) -> Bounds | None:
    condition, then, other = node.inputs
    chosen = look.at(condition)
    branches = [look.at(then), look.at(other)]
    if chosen == TRUE:
        return branches[0]
    if chosen == FALSE:
        return branches[1]
    if branches[0] is None or branches[1] is None:
        return None
    return branches[0].joined(branches[1])


def _sum(look: Look, node: ir.Node) -> Bounds | None:
    left, right = (look.at(value) for value in node.inputs)
    if left is None or right is None:
        return None
    if node.op_type == "Sub":
        if right.infinite:
            return None
        right = Bounds(-right.high, -right.low)
    return left.plus(right)


def _product(look: Look, node: ir.Node) -> Bounds | None:
    left, right = (look.at(value) for value in node.inputs)
    return None if left is None or right is None else left.times(right)


def _negative(look: Look, node: ir.Node) -> Bounds | None:
    found = look.at(node.inputs[0])
    return None if found is None or found.infinite else Bounds(-found.high, -found.low)


def _absolute(look: Look, node: ir.Node) -> Bounds | None:
    found = look.at(node.inputs[0])
    if found is None or found.infinite:
        return None
    low = max(found.low, -found.high, 0.0)
    return Bounds(low, max(abs(found.low), abs(found.high)))


def _cast(look: Look, node: ir.Node) -> Bounds | None:
    found, dtype = look.at(node.inputs[0]), look.site.facts.dtype(node.outputs[0])
    if found is None or dtype is None or dtype.is_floating_point():
        return found
    if dtype == ir.DataType.BOOL:
        return _unlike(found, 0.0)
    return None if found.infinite else Bounds(math.floor(found.low), math.ceil(found.high))


def _unlike(found: Bounds, value: float) -> Bounds:
    """Return whether elements in `found` differ from a finite number."""
    if found.low > value or found.high < value:
        return TRUE
    if found.low == found.high == value and not found.infinite:
        return FALSE
    return EITHER


def _equal(look: Look, node: ir.Node) -> Bounds | None:
    for one, other in commuted(node):
        found, number = look.at(one), look.at(other)
        single = number is not None and not number.infinite and number.low == number.high
        if found is not None and number is not None and single:
            return _not(_unlike(found, number.low))
    return None


def _compared(look: Look, node: ir.Node) -> Bounds | None:
    """Compare intervals: `a <= b` is true where all of `a` is at most all of `b`."""
    left, right = (look.at(value) for value in node.inputs)
    if left is None or right is None or left.infinite or right.infinite:
        return None
    if node.op_type.startswith("Greater"):
        left, right = right, left
    strict = not node.op_type.endswith("OrEqual")
    if left.high < right.low or (left.high == right.low and not strict):
        return TRUE
    if left.low > right.high or (left.low == right.high and strict):
        return FALSE
    return None


def _not(found: Bounds) -> Bounds:
    return Bounds(1.0 - found.high, 1.0 - found.low)


def _flipped(look: Look, node: ir.Node) -> Bounds | None:
    found = look.at(node.inputs[0])
    return None if found is None else _not(found)


def _logical(look: Look, node: ir.Node) -> Bounds | None:
    left, right = (look.at(value) for value in node.inputs)
    if left is None or right is None:
        return None
    pick = min if node.op_type == "And" else max
    return Bounds(pick(left.low, right.low), pick(left.high, right.high))


def _greatest(look: Look, node: ir.Node) -> Bounds | None:
    """Max is as high as the highest, and at least as low as every finite one."""
    parts = [look.at(value) for value in node.inputs]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or not known:
        return None
    floors = [part.low if not part.infinite else -math.inf for part in known]
    infinite = all(part.infinite for part in known)
    low = min(part.low for part in known) if infinite else max(floors)
    return Bounds(low, max(part.high for part in known), infinite, infinite)


ELEMENTWISE: dict[str, Rule] = {
    **dict.fromkeys(("Add", "Sub"), _sum),
    **dict.fromkeys(("Less", "LessOrEqual", "Greater", "GreaterOrEqual"), _compared),
    **dict.fromkeys(("And", "Or"), _logical),
    "Where": _where,
    "Mul": _product,
    "Neg": _negative,
    "Abs": _absolute,
    "Cast": _cast,
    "Not": _flipped,
    "Equal": _equal,
    "Max": _greatest,
}
