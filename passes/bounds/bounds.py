"""Between which numbers a mask lies, which decides what becomes of a row without any key.

    softmax over a row of -inf          NaN
    softmax over a row of one number    every key weighs the same, however low the number is

Operators for attention agree with that or not, so what a mask may hold has to be known. Bounds
are followed from constants, booleans and sizes through what exporters build masks of. A row has a
key where its first element is one, as in every causal mask: bounds of the first elements alone
are therefore followed as well.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from leptonc.passes.bounds.elementwise import ELEMENTWISE
from leptonc.passes.bounds.interval import Bounds, of_constant
from leptonc.passes.bounds.lookback import Look, Rule
from leptonc.passes.rewriting.site import Site

# No tensor in memory has more elements, and so no dimension and no Range is longer.
_LONGEST = float(1 << 48)


def bounds(site: Site, value: ir.Value | None) -> Bounds | None:
    """Return between which numbers `value` lies whatever the inputs are, or None."""
    return Look(site, first=False, rules=_RULES).at(value)


def first_bounds(site: Site, value: ir.Value | None) -> Bounds | None:
    """Return between which numbers the first element of each row of `value` lies, or None.

    Rows go along the last axis. A row without elements has none.
    """
    return Look(site, first=True, rules=_RULES).at(value)


def _same(look: Look, node: ir.Node) -> Bounds | None:
    return look.at(node.inputs[0])


def _moved(look: Look, node: ir.Node) -> Bounds | None:
    found = look.whole(node.inputs[0])
    return None if found is None else found.scattered()


def _unsqueeze(look: Look, node: ir.Node) -> Bounds | None:
    rank, axes = look.site.facts.rank(node.outputs[0]), look.site.at(node).ints(1)
    if rank is None or axes is None:
        return _moved(look, node)
    if any(axis % rank == rank - 1 for axis in axes):
        # Each element is a row of its own.
        return _moved(look, node)
    return _same(look, node)


def _reshape(look: Look, node: ir.Node) -> Bounds | None:
    before = look.site.facts.symbolic(node.inputs[0])
    after = look.site.facts.symbolic(node.outputs[0])
    if before and after and before[-1] == after[-1]:
        return _same(look, node)
    return _moved(look, node)


def _slice(look: Look, node: ir.Node) -> Bounds | None:
    """Rows stay, or lose their end."""
    here = look.site.at(node)
    rank, starts, axes = look.site.facts.rank(node.inputs[0]), here.ints(1), here.ints(3)
    steps = here.ints(4) if len(node.inputs) > 4 else (1,) * len(axes or ())
    if rank is None or axes is None or steps is None:
        return _moved(look, node)
    if look.first:
        for index, axis in enumerate(axes):
            if axis % rank == rank - 1 and (not starts or starts[index] or steps[index] != 1):
                return _moved(look, node)
        return _same(look, node)
    return (
        _same(look, node) if rank - 1 not in {axis % rank for axis in axes} else _moved(look, node)
    )


def _gather(look: Look, node: ir.Node) -> Bounds | None:
    rank = look.site.facts.rank(node.inputs[0])
    if rank is None or node.attributes.get_int("axis", 0) % rank == rank - 1:
        return _moved(look, node)
    return _same(look, node)


def _concat(look: Look, node: ir.Node) -> Bounds | None:
    result: Bounds | None = None
    for part in node.inputs:
        found = look.whole(part)
        if found is None:
            return None
        result = found.scattered() if result is None else result.joined(found)
    return result


def _triangle(look: Look, node: ir.Node) -> Bounds | None:
    """What lies on the other side of a diagonal becomes 0."""
    found, zero = look.at(node.inputs[0]), Bounds(0.0, 0.0)
    diagonal = 0.0
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = look.site.scalar(node.inputs[1])
        if given is None:
            return None if found is None else found.joined(zero)
        diagonal = given
    upper = bool(node.attributes.get_int("upper", 1))
    if look.first and upper and diagonal >= 1:
        return zero
    if found is None or (look.first and not upper and diagonal >= 0):
        return found
    return found.joined(zero)


def _filled(look: Look, node: ir.Node) -> Bounds | None:
    del look
    attribute = node.attributes.get("value")
    if attribute is None:
        return Bounds(0.0, 0.0)
    return of_constant(attribute.as_tensor())


def _counted(look: Look, node: ir.Node) -> Bounds | None:
    """Range counts from its start, and is not longer than a tensor can be."""
    start, delta = look.whole(node.inputs[0]), look.site.scalar(node.inputs[2])
    if start is None or delta is None or not math.isfinite(delta):
        return None
    if look.first:
        return start
    reach = delta * _LONGEST
    return Bounds(start.low + min(reach, 0.0), start.high + max(reach, 0.0))


def _shape(look: Look, node: ir.Node) -> Bounds | None:
    del look, node
    return Bounds(0.0, _LONGEST)


_RULES: dict[str, Rule] = {
    **ELEMENTWISE,
    # Expand repeats rows, or the only element of a row.
    **dict.fromkeys(("Identity", "Expand"), _same),
    **dict.fromkeys(("Squeeze", "Flatten", "Transpose"), _moved),
    **dict.fromkeys(("GatherElements", "GatherND", "Tile"), _moved),
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Slice": _slice,
    "Gather": _gather,
    "Concat": _concat,
    "Trilu": _triangle,
    "ConstantOfShape": _filled,
    "Range": _counted,
    "Shape": _shape,
}
