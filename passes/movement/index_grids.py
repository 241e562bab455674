"""A gather by a grid of all positions, which gathers nothing but gives the data a new shape.

torch's masks are functions of positions, vectorised over every one of them. With
`b = 0, 1, ..., B-1` along axis 0 and `s = 0, 1, ..., S-1` along the last of four axes,

    GatherND(x[B, S], Concat(b, s))  ->  Unsqueeze(x, axes=[1, 2])     [B, 1, 1, S]

The indices are Concat of one part for each axis of x; each part is Range(0, size, 1) laid along
one axis of the grid by Unsqueeze, and repeated along the others by Expand. The parts must lie
along different axes in the order of those of x, each as long as x is there, and every other axis
of the grid must have size 1. Exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.sizes import ONE, Size
from leptonc.passes.graph.constants import constant_ints
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site

_FIRST_OPSET = 13


@dataclass(frozen=True)
class Grid:
    """A GatherND by positions.

    Attributes:
        data: What is gathered from.
        axes: For each axis of `data` the axis of the grid that its positions run along.
        lengths: How many positions there are on each.
        rank: Of the grid.
    """

    data: ir.Value
    axes: tuple[int, ...]
    lengths: tuple[Size, ...]
    rank: int


def _grid(site: Site) -> Grid | None:
    if site.opset < _FIRST_OPSET or site.node.attributes.get_int("batch_dims", 0) != 0:
        return None
    data, concat = site.input(0), site.producer(site.input(1), "Concat")
    dims, grid = site.facts.symbolic(data), site.facts.symbolic(site.input(1))
    if data is None or concat is None or not dims or grid is None:
        return None
    rank = len(grid) - 1
    if concat.attributes.get_int("axis", 0) not in (-1, rank) or len(concat.inputs) != len(dims):
        return None
    found = [positions(value, site) for value in concat.inputs]
    known = [one for one in found if one is not None]
    if len(known) != len(found):
        return None
    return Grid(data, tuple(axis for axis, _ in known), tuple(size for _, size in known), rank)


def positions(value: ir.Value | None, site: Site) -> tuple[int, Size] | None:
    """Return the axis that `value` counts along from 0, and how far, or None.

    Along every other axis it repeats itself.
    """
    dims = site.facts.symbolic(value)
    if dims is None:
        return None
    inserted: list[list[int]] = []
    while True:
        node = site.producer(value, "Unsqueeze", "Expand", "Range")
        if node is None:
            return None
        if node.op_type == "Range":
            break
        if node.op_type == "Unsqueeze":
            axes = constant_ints(node.inputs[1])
            after = site.facts.symbolic(node.outputs[0])
            if axes is None or after is None:
                return None
            inserted.append(sorted(axis % len(after) for axis in axes))
        else:
            before = site.facts.symbolic(node.inputs[0])
            after = site.facts.symbolic(node.outputs[0])
            if before is None or after is None or len(before) != len(after):
                return None
        value = node.inputs[0]
    if site.scalar(node.inputs[0]) != 0 or site.scalar(node.inputs[2]) != 1:
        return None
    length = site.facts.symbolic(node.outputs[0])
    axis = 0
    for axes_in in reversed(inserted):
        for new in axes_in:
            axis += new <= axis
    return None if length is None else (axis, length[0])


def _covers(site: Site, match: Grid) -> str | None:
    dims, grid = site.facts.symbolic(match.data), site.facts.symbolic(site.node.outputs[0])
    assert dims is not None
    if grid is None or len(grid) != match.rank:
        return "the shape of the result is not known"
    if list(match.axes) != sorted(set(match.axes)):
        return "the axes are taken in another order"
    if match.lengths != dims:
        return "the positions are not known to be all there are"
    for axis, size in enumerate(grid):
        wanted = dims[match.axes.index(axis)] if axis in match.axes else ONE
        if size != wanted:
            return f"axis {axis} of the indices repeats them"
    return None


def _unsqueeze(site: Site, match: Grid, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    new = [axis for axis in range(match.rank) if axis not in match.axes]
    if not new:
        return {out: match.data}
    axes = build.constant(np.array(new, dtype=np.int64), "axes")
    return {out: build.op("Unsqueeze", [match.data, axes], like=out)}


RULES = (Rule("index-grid", ("GatherND",), _grid, _covers, _unsqueeze),)
