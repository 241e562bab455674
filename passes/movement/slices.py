"""Slices, splits and joins that say the same in fewer nodes.

    Slice(Slice(x, a), b)                       ->  Slice(x, c)       on one axis, steps of 1
    Slice(x, 0, n)                              ->  x                 where x is no longer than n
    Concat(all outputs of Split(x), in order)   ->  x
    Split(x) with one output                    ->  x
    Concat(Concat(a, b), c)                     ->  Concat(a, b, c)   along one axis
    Where(c, a, a)                              ->  a                 where a is not broadcast
    Where(True, a, b)                           ->  a                 the same

Exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.constants import constant, constant_ints
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule, read_match
from leptonc.passes.rewriting.site import Site

_FIRST_OPSET = 13
_ENDLESS = 2**31 - 1


@dataclass(frozen=True)
class Window:
    """A Slice of one axis in steps of 1.

    Attributes:
        axis: Counted from the front.
        start: Where it begins; negative counts from the end.
        end: Where it ends, exclusive; the same.
    """

    axis: int
    start: int
    end: int


def window(site: Site, node: ir.Node) -> Window | None:
    """Return what a Slice takes, when that is one axis by constants."""
    inputs = [*node.inputs, None, None, None][:5]
    starts, ends, axes = (constant_ints(value) for value in inputs[1:4])
    steps = (1,) if inputs[4] is None else constant_ints(inputs[4])
    rank = site.facts.rank(inputs[0])
    if axes is None and inputs[3] is None:
        axes = (0,)
    if not (starts and ends and axes and rank) or steps != (1,):
        return None
    if len(starts) != 1 or len(ends) != 1 or len(axes) != 1:
        return None
    return Window(axes[0] % rank, starts[0], ends[0])


@dataclass(frozen=True)
class Sliced:
    """Two Slices of one axis as one."""

    source: ir.Value
    axis: int
    start: int
    end: int


def _slices(site: Site) -> Sliced | None:
    inner = site.producer(site.input(0), "Slice")
    if site.opset < _FIRST_OPSET or inner is None or inner.inputs[0] is None:
        return None
    outer, first = window(site, site.node), window(site, inner)
    if outer is None or first is None or outer.axis != first.axis:
        return None
    if min(outer.start, outer.end, first.start, first.end) < 0:
        return None
    start = first.start + outer.start
    end = min(first.end, first.start + outer.end)
    return Sliced(inner.inputs[0], outer.axis, min(start, max(end, 0)), end)


def _slice(site: Site, match: Sliced, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    numbers = (match.start, match.end, match.axis)
    ends = [
        build.constant(np.array([number], dtype=np.int64), stem)
        for number, stem in zip(numbers, ("starts", "ends", "axes"), strict=True)
    ]
    return {out: build.op("Slice", [match.source, *ends], like=out)}


def _whole(site: Site) -> ir.Value | None:
    found = window(site, site.node) if site.opset >= _FIRST_OPSET else None
    source = site.input(0)
    dims = site.facts.dims(source)
    if found is None or source is None or dims is None or found.start != 0:
        return None
    size = dims[found.axis]
    return source if size is not None and found.end >= size else None


def _joined(site: Site) -> ir.Value | None:
    """Return x of a Concat of all that Split made of it."""
    node = site.node
    first = node.inputs[0]
    split = site.producer(first, "Split")
    if split is None or list(node.inputs) != list(split.outputs):
        return None
    source = split.inputs[0]
    rank = site.facts.rank(source)
    if source is None or not rank:
        return None
    axes = [each.attributes.get_int("axis", 0) % rank for each in (node, split)]
    return source if axes[0] == axes[1] else None


def _unsplit(site: Site) -> ir.Value | None:
    return site.input(0) if len(site.node.outputs) == 1 else None


@dataclass(frozen=True)
class Joined:
    """The parts of a Concat with those of the Concats among them."""

    parts: tuple[ir.Value | None, ...]


def _nested(site: Site) -> Joined | None:
    rank = site.facts.rank(site.node.outputs[0])
    if not rank:
        return None
    axis = site.node.attributes.get_int("axis", 0) % rank
    parts: list[ir.Value | None] = []
    for value in site.node.inputs:
        inner = site.producer(value, "Concat")
        alone = (
            inner is not None
            and value is not None
            and inner.attributes.get_int("axis", 0) % rank == axis
            and site.read_elsewhere(value, (site.node,)) is None
        )
        parts.extend(inner.inputs if alone and inner is not None else (value,))
    return Joined(tuple(parts)) if len(parts) > len(site.node.inputs) else None


def _join(site: Site, match: Joined, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    axis = site.node.attributes.get_int("axis", 0)
    return {out: build.op("Concat", list(match.parts), {"axis": axis}, like=out)}


def _chosen(site: Site) -> ir.Value | None:
    """Return the operand that Where always gives, when it has the shape of the result."""
    condition, yes, no = (site.input(index) for index in range(3))
    tensor = constant(condition)
    value = yes if yes is no else None
    if tensor is not None and tensor.dtype == ir.DataType.BOOL and tensor.size:
        array = tensor.numpy()
        value = yes if array.all() else value if array.any() else no
    dims = site.facts.symbolic(value)
    same = dims is not None and dims == site.facts.symbolic(site.node.outputs[0])
    return value if same else None


RULES = (
    Rule("slice-whole", ("Slice",), _whole, None, read_match),
    Rule("slice-chain", ("Slice",), _slices, None, _slice),
    Rule("concat-of-split", ("Concat",), _joined, None, read_match),
    Rule("split-in-one", ("Split",), _unsplit, None, read_match),
    Rule("concat-chain", ("Concat",), _nested, None, _join),
    Rule("where-known", ("Where",), _chosen, None, read_match),
)
