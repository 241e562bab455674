"""Which part of the last axis a value holds: a slice of it, or one piece of a split.

`x[..., a:b:s]` is written as Slice, or, for pieces side by side, as Split. With the length of the
axis known, each is a range of positions, and two spellings of one part are equal.
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
