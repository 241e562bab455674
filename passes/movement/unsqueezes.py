"""Dimensions of size 1, put in or taken out in one node.

    Unsqueeze(Unsqueeze(x, a), b)  ->  Unsqueeze(x, c)
    Squeeze(Squeeze(x, a), b)      ->  Squeeze(x, c)
    Squeeze(Unsqueeze(x, a), b)    ->  Unsqueeze(x, c)    if b takes out only what a put in

Exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.constants import constant_ints
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site

_FIRST_OPSET = 13


@dataclass(frozen=True)
class Ones:
    """Two nodes as one.

    Attributes:
        source: What the first one reads.
        operator: Unsqueeze or Squeeze.
        axes: Of the new node.
    """

    source: ir.Value
    operator: str
    axes: tuple[int, ...]


def _axes(node: ir.Node, rank: int) -> list[int] | None:
    """Return the axes, counted from the front in the tensor that has more dimensions."""
    given = constant_ints(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if given is None or not rank else sorted(axis % rank for axis in given)


def _pattern(site: Site) -> Ones | None:
    outer = site.node
    inner = site.producer(site.input(0), "Unsqueeze", "Squeeze")
    if site.opset < _FIRST_OPSET or inner is None or inner.inputs[0] is None:
        return None
    source = inner.inputs[0]
    start, middle = site.facts.rank(source), site.facts.rank(inner.outputs[0])
    end = site.facts.rank(outer.outputs[0])
    if start is None or middle is None or end is None:
        return None
    first = _axes(inner, max(start, middle))
    second = _axes(outer, max(middle, end))
    if first is None or second is None:
        return None
    if inner.op_type == outer.op_type == "Unsqueeze":
        return Ones(source, "Unsqueeze", _put_in(first, second, end))
    if inner.op_type == outer.op_type == "Squeeze":
        left = [axis for axis in range(start) if axis not in first]
        return Ones(source, "Squeeze", tuple(sorted([*first, *(left[a] for a in second)])))
    if inner.op_type == "Unsqueeze" and set(second) < set(first):
        kept = [axis for axis in range(middle) if axis not in second]
        return Ones(source, "Unsqueeze", tuple(kept.index(a) for a in first if a not in second))
    return None


def _put_in(first: list[int], second: list[int], rank: int) -> tuple[int, ...]:
    """Return where all new dimensions end up among `rank`."""
    rest = [axis for axis in range(rank) if axis not in second]
    return tuple(sorted([*second, *(rest[axis] for axis in first)]))


def _rewrite(site: Site, match: Ones, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    axes = build.constant(np.array(match.axes, dtype=np.int64), "axes")
    return {out: build.op(match.operator, [match.source, axes], like=out)}


RULES = (Rule("ones-chain", ("Unsqueeze", "Squeeze"), _pattern, None, _rewrite),)
