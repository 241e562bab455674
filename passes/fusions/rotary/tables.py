"""Tables of cosines and sines in which every column stands twice, and how to build them once.

A rotation turns pairs of columns, and both columns of a pair by one angle. Exporters therefore
write a table `[..., S, R]` of which half is redundant:

    halves: Concat(f, f, axis=-1) or Tile(f, [..., 2]):         column j equals column j + R/2
    pairs:  Reshape(Expand(Unsqueeze(f, -1), [..., 2]), ...):   column 2j equals column 2j + 1

Element by element functions keep that: Cos(Concat(f, f)) is Concat(Cos(f), Cos(f)). So do
Unsqueeze and Squeeze of other axes, and Gather and Slice along other axes. Of a constant the
columns are compared bit by bit. Anything else is not proven, and no table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.sizes import Size, number
from leptonc.passes.fusions.rotary.column_parts import last_axis
from leptonc.passes.graph.constants import constant_ints
from leptonc.passes.rewriting.site import Site

Sizes = tuple[Size, ...]

_UNARY = frozenset({"Cos", "Sin", "Neg", "Cast"})
_SCALED = frozenset({"Mul", "Div", "Add", "Sub"})


@dataclass(frozen=True)
class Table:
    """One column of each two.

    Attributes:
        base: What it is computed from.
        cut: The columns of `base` to take; None for all: `base` has no column twice.
        steps: Nodes to apply in this order, each with the place of its running input.
        dims: The dimensions of the result.
        moved: Axes of size 1 were added or taken away on the way, and are not in `dims`.
    """

    base: ir.Value
    cut: slice | None
    steps: tuple[tuple[ir.Node, int], ...]
    dims: Sizes
    moved: bool = False


def find_table(site: Site, value: ir.Value, *, pairs: bool) -> Table | None:
    """Return how to compute one column of each two of `value`, or None when that is not proven.

    Args:
        site: Where it is read.
        value: Cosines or sines, `[..., R]`.
        pairs: Equal columns stand side by side; otherwise half the width apart.
    """
    tensor = site.tensor(value)
    if tensor is not None:
        return _constant_table(value, tensor, pairs)
    node = site.producer(value)
    dims = site.facts.symbolic(value)
    if node is None or node.domain or not dims or site.opset < 13:
        return None
    doubled = _doubled(site, node, dims, pairs)
    if doubled is not None:
        return doubled
    if node.op_type in _UNARY:
        return _applied(site, node, 0, pairs)
    if node.op_type in _SCALED:
        return _scaled(site, node, pairs)
    if node.op_type in {"Unsqueeze", "Squeeze"}:
        return _relabelled(site, node, dims, pairs)
    if node.op_type in {"Gather", "Slice"}:
        return _taken(site, node, dims, pairs)
    return None


def _constant_table(value: ir.Value, tensor: ir.TensorProtocol, pairs: bool) -> Table | None:
    shape = [int(size) for size in tensor.shape.numpy()]
    if not shape or shape[-1] % 2 or not shape[-1]:
        return None
    array, half = tensor.numpy(), shape[-1] // 2
    first, second = slice(half), slice(half, None)
    if pairs:
        first, second = slice(0, None, 2), slice(1, None, 2)
    if array[..., first].tobytes() != array[..., second].tobytes():
        return None
    dims = (*(number(size) for size in shape[:-1]), number(half))
    return Table(value, first, (), dims)


def _doubled(site: Site, node: ir.Node, dims: Sizes, pairs: bool) -> Table | None:
    """Return the table of a node that writes every column twice."""
    source = node.inputs[0] if node.inputs else None
    if source is None:
        return None
    if node.op_type == "Concat" and not pairs:
        same = len(node.inputs) == 2 and node.inputs[1] is source
        doubled = same and last_axis(site, node, source)
    elif node.op_type == "Tile" and not pairs:
        repeats = constant_ints(node.inputs[1])
        doubled = repeats is not None and repeats[-1:] == (2,) and set(repeats[:-1]) <= {1}
    elif node.op_type == "Reshape" and pairs:
        return _doubled_pairs(site, node, dims)
    else:
        return None
    before = site.facts.symbolic(source)
    return Table(source, None, (), before) if doubled and before else None


def _doubled_pairs(site: Site, node: ir.Node, dims: Sizes) -> Table | None:
    """Read Reshape of [..., R/2, 2], both of whose last columns are equal, to [..., R].

    The result is the rows of R/2 columns in their order, whatever the leading dimensions are.
    """
    source = node.inputs[0]
    inner = site.producer(source, "Expand", "Concat")
    wide = site.facts.symbolic(source)
    if inner is None or not wide or len(wide) < 2 or wide[-1].number != 2:
        return None
    if inner.op_type == "Concat":
        column = inner.inputs[0]
        if any(value is not column for value in inner.inputs):
            return None
        if not last_axis(site, inner, inner.outputs[0]):
            return None
    else:
        column = inner.inputs[0]
    before = site.facts.symbolic(column)
    thin = site.producer(column, "Unsqueeze")
    if thin is None or not before or before[-1].number != 1 or before[:-1] != wide[:-1]:
        return None
    axes = constant_ints(thin.inputs[1]) or ()
    base = thin.inputs[0]
    lead = site.facts.symbolic(base)
    half = wide[-2].number
    if base is None or not lead or not {-1, len(before) - 1} & set(axes):
        return None
    if half is None or lead[-1].number != half or dims[-1].number != 2 * half:
        return None
    return Table(base, None, (), lead, moved=len(lead) != len(dims))


def _applied(site: Site, node: ir.Node, place: int, pairs: bool) -> Table | None:
    value = node.inputs[place]
    table = None if value is None else find_table(site, value, pairs=pairs)
    return None if table is None else replace(table, steps=(*table.steps, (node, place)))


def _scaled(site: Site, node: ir.Node, pairs: bool) -> Table | None:
    """Read arithmetic with a constant of one element."""
    for place in (0, 1):
        other = site.tensor(node.inputs[1 - place])
        if other is None or other.size != 1 or len(other.shape) > 1:
            continue
        value = node.inputs[place]
        neutral = node.op_type == "Mul" or (node.op_type == "Div" and place == 0)
        if neutral and value is not None and site.scalar(node.inputs[1 - place]) == 1:
            return find_table(site, value, pairs=pairs)
        return _applied(site, node, place, pairs)
    return None


def _relabelled(site: Site, node: ir.Node, dims: Sizes, pairs: bool) -> Table | None:
    value = node.inputs[0]
    before = site.facts.symbolic(value)
    axes = constant_ints(node.inputs[1]) if len(node.inputs) > 1 else None
    if value is None or not before or axes is None:
        return None
    rank = max(len(before), len(dims))
    if before[-1] != dims[-1] or any(axis % rank == rank - 1 for axis in axes):
        return None
    table = find_table(site, value, pairs=pairs)
    return None if table is None else replace(table, moved=True)


def _taken(site: Site, node: ir.Node, dims: Sizes, pairs: bool) -> Table | None:
    """Read Gather or Slice along axes other than the last."""
    value = node.inputs[0]
    before = site.facts.symbolic(value)
    if value is None or not before or not _keeps_columns(node, len(before)):
        return None
    table = find_table(site, value, pairs=pairs)
    if table is None or table.moved:
        return None
    return replace(table, steps=(*table.steps, (node, 0)), dims=(*dims[:-1], table.dims[-1]))


def _keeps_columns(node: ir.Node, rank: int) -> bool:
    if node.op_type == "Gather":
        return node.attributes.get_int("axis", 0) % rank != rank - 1
    axes = constant_ints(node.inputs[3]) if len(node.inputs) > 3 else None
    return axes is not None and all(axis % rank != rank - 1 for axis in axes)


def cut_columns(array: np.ndarray[Any, Any], columns: slice) -> np.ndarray[Any, Any]:
    """Return some of the columns of `array`."""
    return np.ascontiguousarray(array[..., columns])
