"""Builds the rotary operators, and knows the layouts that they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.build import AttributeValue, Build
from leptonc.passes.fusions.rotary_tables import Sizes, Table, cut_columns
from leptonc.passes.rule import GENERIC, ORT_CPU, ORT_CUDA
from leptonc.passes.site import Site
from leptonc.passes.sizes import ONE, Size

MICROSOFT = "com.microsoft"

_PLAIN = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})

# The element types that the operator of a target takes.
TYPES = {
    GENERIC: _PLAIN | {ir.DataType.BFLOAT16},
    ORT_CPU: _PLAIN,
    ORT_CUDA: _PLAIN | {ir.DataType.BFLOAT16},
}


@dataclass(frozen=True)
class Heads:
    """What the axes of x are.

    Attributes:
        dims: The dimensions of x.
        sequence: The axis of the positions.
        head: The axis of the heads; None when there is one head, without an axis.
        shared: The tables are the same for all of the batch.
    """

    dims: Sizes
    sequence: int
    head: int | None
    shared: bool

    @property
    def count(self) -> int | None:
        """How many heads there are, when that is the same in every run."""
        return 1 if self.head is None else self.dims[self.head].number

    @property
    def first(self) -> bool:
        """Whether the heads come before the positions."""
        return self.head == 1

    def accepts(self, table: Sizes) -> bool:
        """Whether the rows of `table` are those of all positions in their order."""
        batch = ONE if self.shared else self.dims[0]
        rows = [size for size in (batch, self.dims[self.sequence]) if size != ONE]
        return [size for size in table[:-1] if size != ONE] == rows


def find_heads(site: Site, x: ir.Value, cos: ir.Value, sin: ir.Value) -> Heads | None:
    """Return the layout of `x` in which both tables have one row for each position."""
    dims = site.facts.symbolic(x)
    shapes = [site.facts.symbolic(table) for table in (cos, sin)]
    if dims is None or len(dims) not in (3, 4):
        return None
    layouts: tuple[tuple[int, int | None], ...] = ((2, 1), (1, 2)) if len(dims) == 4 else ((1, None),)
    for sequence, head in layouts:
        batches = [_batch(dims, shape, sequence, head) for shape in shapes]
        if None in batches or (head == 2 and dims[2].number is None):
            continue
        if batches[0] == batches[1] or dims[0] == ONE:
            return Heads(dims, sequence, head, ONE in batches)
    return None


def _batch(dims: Sizes, shape: Sizes | None, sequence: int, head: int | None) -> Size | None:
    """Return the batch of a table, or None when it has not one row for each position."""
    if shape is None or len(shape) > len(dims):
        return None
    table = (*(ONE,) * (len(dims) - len(shape)), *shape)
    fits = table[sequence] == dims[sequence] and table[-1] == dims[-1]
    if not fits or (head is not None and table[head] != ONE):
        return None
    return table[0] if table[0] in (ONE, dims[0]) else None


def embed(
    site: Site,
    build: Build,
    x: ir.Value,
    tables: Sequence[Table],
    heads: Heads,
    attributes: dict[str, AttributeValue],
    like: ir.Value,
) -> ir.Value:
    """Build the rotation of `x`, in the layout of `x`."""
    width = heads.dims[-1].number
    assert width is not None
    own = heads.shared and site.target != GENERIC
    cos, sin = (_table(site, build, table, heads, own) for table in tables)
    if heads.first:
        return rotate(build, x, (cos, sin), attributes, like, own=own)
    count = heads.count
    assert count is not None
    attributes = {**attributes, "num_heads": count}
    if heads.head is None:
        return rotate(build, x, (cos, sin), attributes, like, own=own)
    rows = build.op("Reshape", [x, _ints(build, 0, 0, count * width)])
    turned = rotate(build, rows, (cos, sin), attributes, None, own=own)
    return build.op("Reshape", [turned, _ints(build, 0, 0, count, width)], like=like)


def rotate(
    build: Build,
    x: ir.Value,
    tables: tuple[ir.Value, ir.Value],
    attributes: dict[str, AttributeValue],
    like: ir.Value | None,
    *,
    own: bool,
) -> ir.Value:
    """Build one operator: ONNX Runtime's own, or the standard one."""
    if not own:
        return build.op("RotaryEmbedding", [x, *tables], attributes, like=like)
    inputs = [x, _ints(build, 0), *tables]
    return build.op("RotaryEmbedding", inputs, attributes, domain=MICROSOFT, like=like)


def _ints(build: Build, *values: int) -> ir.Value:
    return build.constant(np.array(values, dtype=np.int64), "shape")


def _table(site: Site, build: Build, table: Table, heads: Heads, own: bool) -> ir.Value:
    """Build a table `[S, R/2]` for ONNX Runtime's own operator, `[B, S, R/2]` for the standard."""
    value, half = _half(build, table), table.dims[-1].number
    assert half is not None
    positions = heads.dims[heads.sequence]
    if own:
        if table.dims == (positions, table.dims[-1]) and not table.moved:
            return value
        return _once(build, "Reshape", [value], lambda: [value, _ints(build, -1, half)])
    batch = ONE if heads.shared else heads.dims[0]
    ...
