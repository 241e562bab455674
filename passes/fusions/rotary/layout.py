"""Where the batch, the heads and the positions of a rotated tensor are."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.sizes import ONE, Size
from leptonc.passes.fusions.rotary.tables import Sizes
from leptonc.passes.rewriting.site import Site


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


_LAYOUTS: dict[int, tuple[tuple[int, int | None], ...]] = {3: ((1, None),), 4: ((2, 1), (1, 2))}


def find_heads(
    site: Site, x: ir.Value, cos: ir.Value, sin: ir.Value, width: Size | None = None
) -> Heads | None:
    """Return the layout of `x` in which both tables have one row for each position.

    Args:
        site: Where `x` is rotated.
        x: Three or four dimensions.
        cos: The table of cosines.
        sin: The table of sines.
        width: How many columns the tables have; None for those of `x`.
    """
    dims = site.facts.symbolic(x)
    shapes = [site.facts.symbolic(table) for table in (cos, sin)]
    if dims is None or len(dims) not in (3, 4):
        return None
    columns = dims[-1] if width is None else width
    for sequence, head in _LAYOUTS[len(dims)]:
        batches = [_batch((*dims[:-1], columns), shape, sequence, head) for shape in shapes]
        if None in batches or (head == 2 and dims[2].number is None):
            continue
        if batches[0] == batches[1]:
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
