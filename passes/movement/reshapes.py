"""Reshapes whose target is computed from sizes that are known by name.

    Reshape(x, s)                   ->  x                        if x has the shape s
    Reshape(x, s)                   ->  Reshape(x, constant)     0 copies a size, -1 is the one left
    Reshape(Reshape(x, s), t)       ->  Reshape(x, t)
    Reshape(Transpose(Reshape(x, s), p), t)  ->  Transpose(x, q)

In the last, s merges the leading dimensions of x into one, p leaves that one in front, and t
splits it again: exporters transpose the last two of four dimensions so. q moves the others as p
does. All are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.sizes import Size, product
from leptonc.passes.graph.constants import constant
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site

_FIRST_OPSET = 13


@dataclass(frozen=True)
class Relabelled:
    """A Reshape that is less.

    Attributes:
        source: What is read instead of the Reshape's input.
        target: The new constant target; None when `source` itself is the result.
    """

    source: ir.Value
    target: tuple[int, ...] | None


def _known(site: Site) -> Relabelled | None:
    out = site.node.outputs[0]
    source, dims = site.input(0), site.facts.symbolic(out)
    if site.opset < _FIRST_OPSET or source is None or dims is None:
        return None
    inner = site.producer(source, "Reshape")
    for value in (inner.inputs[0] if inner is not None else None, source):
        before = site.facts.symbolic(value)
        if value is None or before is None:
            continue
        if before == dims:
            return Relabelled(value, None)
        if value is source and constant(site.input(1)) is not None:
            continue
        target = _target(before, dims)
        if target is not None:
            return Relabelled(value, target)
    return None


def _target(before: tuple[Size, ...], dims: tuple[Size, ...]) -> tuple[int, ...] | None:
    """Spell `dims` with numbers, 0 for the size at the same place of `before`, and one -1."""
    target: list[int] = []
    for axis, size in enumerate(dims):
        if size.number is not None:
            target.append(size.number)
        elif before[axis : axis + 1] == (size,):
            target.append(0)
        else:
            target.append(-1)
    # A number 0 would be read as a copy.
    if target.count(-1) > 1 or any(size.number == 0 for size in dims):
        return None
    return tuple(target)


def _relabel(site: Site, match: Relabelled, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    if match.target is None:
        return {out: match.source}
    shape = build.constant(np.array(match.target, dtype=np.int64), "shape")
    return {out: build.op("Reshape", [match.source, shape], like=out)}


@dataclass(frozen=True)
class RoundTrip:
    """`Transpose(source, order)` in three nodes."""

    source: ir.Value
    order: tuple[int, ...]


def _round_trip(site: Site) -> RoundTrip | None:
    transpose = site.producer(site.input(0), "Transpose")
    merge = None if transpose is None else site.producer(transpose.inputs[0], "Reshape")
    if transpose is None or merge is None:
        return None
    source = merge.inputs[0]
    order = transpose.attributes.get_ints("perm")
    before, merged = site.facts.symbolic(source), site.facts.symbolic(merge.outputs[0])
    after = site.facts.symbolic(site.node.outputs[0])
    if source is None or before is None or merged is None or after is None or not order:
        return None
    rest = len(merged) - 1
    lead = len(before) - rest
    if lead < 2 or order[0] != 0 or len(after) != len(before):
        return None
    combined = (*range(lead), *(lead + axis - 1 for axis in order[1:]))
    same = before[lead:] == merged[1:] and product(before[:lead]) == merged[0]
    return RoundTrip(source, combined) if same else None


def _splits_alike(site: Site, match: RoundTrip) -> str | None:
    before = site.facts.symbolic(match.source)
    after = site.facts.symbolic(site.node.outputs[0])
    assert before is not None
    if after != tuple(before[axis] for axis in match.order):
        return "the last Reshape is not known to split what the first one merged"
    return None


def _transpose(site: Site, match: RoundTrip, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    return {out: build.op("Transpose", [match.source], {"perm": match.order}, like=out)}


RULES = (
    Rule("reshape-round-trip", ("Reshape",), _round_trip, _splits_alike, _transpose),
    Rule("reshape-known", ("Reshape",), _known, None, _relabel),
)
