"""Which part of the last axis a value holds, and how two parts make a whole.

`x[..., a:b:s]` is written as Slice, or, for pieces side by side, as Split. With the length of the
axis known, each is a range of positions, and two spellings of one part are equal. Two parts a and
b of R/2 columns each are put together as

    halves: Concat(a, b, axis=-1)
    pairs:  Reshape(Concat(a[..., None], b[..., None], axis=-1))
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.graph.constants import constant_ints
from leptonc.passes.graph.operators import has_plain_attributes
from leptonc.passes.rewriting.site import Site


@dataclass(frozen=True)
class Part:
    """Positions of the last axis of a value.

    Attributes:
        source: The value.
        positions: Those that the part holds, in order.
        length: How many there are in the whole axis.
    """

    source: ir.Value
    positions: range
    length: int


def last_axis(site: Site, node: ir.Node, value: ir.Value) -> bool:
    """Whether the attribute `axis` of `node` names the last axis of `value`."""
    axis, rank = node.attributes.get_int("axis"), site.facts.rank(value)
    return axis is not None and (axis == -1 or (rank is not None and axis == rank - 1))


@dataclass(frozen=True)
class Joined:
    """Two parts put together.

    Attributes:
        first: a.
        second: b.
        pairs: Their columns alternate; otherwise they stand side by side.
        nodes: Those that put them together, the last one last.
    """

    first: ir.Value | None
    second: ir.Value | None
    pairs: bool
    nodes: tuple[ir.Node, ...]

    def as_wide_as(self, site: Site, x: ir.Value) -> bool:
        """Whether the Reshape of pairs, which could give any shape, gives that of `x`."""
        dims = site.facts.symbolic(x)
        same = dims is not None and dims == site.facts.symbolic(self.nodes[-1].outputs[0])
        return same or not self.pairs


def joined(site: Site, value: ir.Value) -> Joined | None:
    """Return the two parts that `value` is put together from, or None."""
    reshape = site.producer(value, "Reshape")
    concat = site.producer(value if reshape is None else reshape.inputs[0], "Concat")
    if concat is None or len(concat.inputs) != 2 or not last_axis(site, concat, concat.outputs[0]):
        return None
    # Halves.
    if reshape is None:
        return Joined(concat.inputs[0], concat.inputs[1], False, (concat,))
    # Pairs.
    first, second = (_added_column(site, column) for column in concat.inputs)
    if first is None or second is None:
        return None
    return Joined(first.inputs[0], second.inputs[0], True, (first, second, concat, reshape))


def _added_column(site: Site, value: ir.Value | None) -> ir.Node | None:
    """Return the Unsqueeze that adds a last axis."""
    node = site.producer(value, "Unsqueeze")
    rank = site.facts.rank(value)
    if node is None or rank is None or len(node.inputs) != 2:
        return None
    return node if constant_ints(node.inputs[1]) in ((-1,), (rank - 1,)) else None


def is_split(
    site: Site, x: ir.Value, first: ir.Value | None, second: ir.Value | None, *, pairs: bool
) -> bool:
    """Whether `first` and `second` are the first and the second columns of the pairs of `x`."""
    chains = [parts(site, value) for value in (x, first, second)]
    for whole, one, other in common_parts(*chains):
        half = len(whole.positions) // 2
        if not half or len(whole.positions) % 2:
            return False
        columns = (
            (slice(0, None, 2), slice(1, None, 2)) if pairs else (slice(half), slice(half, None))
        )
        if (
            one.positions == whole.positions[columns[0]]
            and other.positions == whole.positions[columns[1]]
        ):
            return True
    return False


def parts(site: Site, value: ir.Value | None) -> list[Part]:
    """Return what `value` is a part of: itself, then what that is a part of, and so on."""
    dims = site.facts.dims(value)
    if value is None or not dims or dims[-1] is None:
        return []
    found = [Part(value, range(dims[-1]), dims[-1])]
    outer = _part_of(site, value)
    while outer is not None:
        inner = found[-1].positions
        found.append(Part(outer.source, _picked(outer.positions, inner), outer.length))
        outer = _part_of(site, outer.source)
    return found


def _picked(outer: range, inner: range) -> range:
    return outer[inner.start : inner.stop : inner.step]


def common_parts(*chains: list[Part]) -> list[tuple[Part, ...]]:
    """Return one part of each chain for every source that all have, the nearest first."""
    found = []
    for part in chains[0]:
        others = [[one for one in chain if one.source is part.source] for chain in chains[1:]]
        if all(others):
            found.append((part, *(one[0] for one in others)))
    return found


def _part_of(site: Site, value: ir.Value) -> Part | None:
    """Return which part of the last axis of another value `value` is, or None."""
    node = value.producer()
    if node is None or node.domain or node.graph is not site.node.graph:
        return None
    if not has_plain_attributes(node) or not node.inputs or node.inputs[0] is None:
        return None
    source = node.inputs[0]
    dims = site.facts.dims(source)
    if not dims or dims[-1] is None:
        return None
    if node.op_type == "Slice":
        positions = _sliced(site, node, dims[-1])
    elif node.op_type == "Split":
        positions = _split(site, node, value, dims[-1])
    else:
        return None
    return None if positions is None else Part(source, positions, dims[-1])


def _sliced(site: Site, node: ir.Node, length: int) -> range | None:
    """Read a Slice of the last axis alone, at constant places, forwards."""
    rank = site.facts.rank(node.inputs[0])
    if site.opset < 10 or rank is None or not 4 <= len(node.inputs) <= 5:
        return None
    start, end, axis = (_single(value) for value in node.inputs[1:4])
    stepped = len(node.inputs) == 5 and node.inputs[4] is not None
    step = _single(node.inputs[4]) if stepped else 1
    if start is None or end is None or step is None or step <= 0 or axis not in (-1, rank - 1):
        return None
    return range(length)[start:end:step]


def _single(value: ir.Value | None) -> int | None:
    found = constant_ints(value)
    return found[0] if found is not None and len(found) == 1 else None


def _split(site: Site, node: ir.Node, value: ir.Value, length: int) -> range | None:
    source = node.inputs[0]
    rank = site.facts.rank(source)
    if rank is None or node.attributes.get_int("axis", 0) not in (-1, rank - 1):
        return None
    sizes: tuple[int, ...] | None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = constant_ints(node.inputs[1])
    elif "split" in node.attributes:
        sizes = tuple(node.attributes.get_ints("split") or ())
    else:
        count = len(node.outputs)
        sizes = (length // count,) * count if length % count == 0 else None
    if sizes is None or len(sizes) != len(node.outputs) or sum(sizes) != length:
        return None
    index = node.outputs.index(value)
    start = sum(sizes[:index])
    return range(start, start + sizes[index])
