"""A gather from a flat tensor by all of its positions, which only gives it a new shape.

TorchScript writes a mask that is read at every pair (b, s) as

    Gather(Flatten(x[B, S], axis=2), s + b * S)  ->  Unsqueeze(x, axes)

with b = 0, 1, ..., B-1 along one axis of the indices, and s = 0, 1, ..., S-1 along a later one;
every other axis has size 1. Flatten lays x out row by row, and s + b * S is the place of (b, s)
there. Exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.sizes import ONE, Size, product
from leptonc.passes.movement.index_grids import positions
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.reuse import ints
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site, commuted

_FIRST_OPSET = 13


@dataclass(frozen=True)
class FlatGrid:
    """A gather by positions in rows.

    Attributes:
        data: What was laid out flat, [B, S].
        dims: Its dimensions.
        tail: How many axes of size 1 the flat tensor has behind its positions.
        rows: The axis of the indices that counts rows, and how many.
        columns: The same for what is counted within a row.
    """

    data: ir.Value
    dims: tuple[Size, ...]
    tail: int
    rows: tuple[int, Size]
    columns: tuple[int, Size]


def _flat_grid(site: Site) -> FlatGrid | None:
    if site.opset < _FIRST_OPSET or site.node.attributes.get_int("axis", 0) != 0:
        return None
    data = site.before(site.input(0), "Flatten", "Reshape")
    add = site.producer(site.input(1), "Add")
    flat = site.facts.symbolic(site.input(0))
    dims = site.facts.symbolic(data)
    if data is None or add is None or not flat or dims is None or len(dims) != 2:
        return None
    if flat[0] != product(dims) or any(size != ONE for size in flat[1:]):
        return None
    for term, scaled in commuted(add):
        multiply = site.producer(scaled, "Mul")
        columns = positions(term, site)
        if multiply is None or columns is None:
            continue
        for count, factor in commuted(multiply):
            rows = positions(count, site)
            if rows is not None and site.facts.content(factor) == (dims[1],):
                return FlatGrid(data, dims, len(flat) - 1, rows, columns)
    return None


def _check(site: Site, match: FlatGrid) -> str | None:
    indices = site.facts.symbolic(site.input(1))
    (row_axis, rows), (column_axis, columns) = match.rows, match.columns
    if (rows, columns) != match.dims:
        return "the positions are not known to be all there are"
    if indices is None:
        return "the shape of the indices is not known"
    if not _terms_have_rank(site, len(indices)) or row_axis >= column_axis:
        return f"rows run along axis {row_axis} and columns along axis {column_axis}"
    wanted = [ONE] * len(indices)
    wanted[row_axis], wanted[column_axis] = match.dims
    return None if indices == tuple(wanted) else "the indices repeat positions"


def _terms_have_rank(site: Site, rank: int) -> bool:
    """Whether the axes of both terms of the indices are those of their sum."""
    add = site.producer(site.input(1), "Add")
    return add is not None and all(site.facts.rank(value) == rank for value in add.inputs)


def _unsqueeze(site: Site, match: FlatGrid, build: Build) -> Rewritten:
    indices, out = site.facts.symbolic(site.input(1)), site.node.outputs[0]
    assert indices is not None
    rank = len(indices) + match.tail
    new = [axis for axis in range(rank) if axis not in (match.rows[0], match.columns[0])]
    if not new:
        return {out: match.data}
    return {out: build.op("Unsqueeze", [match.data, ints(build, *new)], like=out)}


RULES = (Rule("flat-grid", ("Gather",), _flat_grid, _check, _unsqueeze),)
