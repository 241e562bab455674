"""Reads the parts of a normalisation: means, squares, roots, and constants beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.graph.constants import constant_ints
from leptonc.passes.rewriting.scalars import FLOATS, number
from leptonc.passes.rewriting.site import Site, commuted

Nodes = tuple[ir.Node, ...]


@dataclass(frozen=True)
class Part:
    """What a value is made of.

    Attributes:
        source: What it is computed from.
        nodes: The nodes between, the last first.
    """

    source: ir.Value
    nodes: Nodes


def mean_axes(site: Site, mean: ir.Node) -> tuple[int, ...] | None:
    """Return the axes of a ReduceMean that keeps its dimensions, from 0 and sorted."""
    if not mean.attributes.get_int("keepdims", 1):
        return None
    written = mean.attributes.get_ints("axes")
    axes = tuple(written) if written is not None else None
    if axes is None and len(mean.inputs) > 1:
        axes = constant_ints(mean.inputs[1])
    rank = site.facts.rank(mean.inputs[0])
    if not axes or rank is None or any(not -rank <= axis < rank for axis in axes):
        return None
    found = tuple(sorted({axis % rank for axis in axes}))
    return found if len(found) == len(axes) else None


def uncast(site: Site, value: ir.Value) -> Part:
    """Look through a change between floating-point types."""
    node = site.producer(value, "Cast")
    if node is None or node.inputs[0] is None:
        return Part(value, ())
    types = (site.facts.dtype(node.inputs[0]), site.facts.dtype(value))
    return Part(node.inputs[0], (node,)) if FLOATS.issuperset(types) else Part(value, ())


def square(site: Site, value: ir.Value | None) -> Part | None:
    """Read `value` as a square: `Pow(source, 2)` or `Mul(source, source)`."""
    node = site.producer(value, "Pow", "Mul")
    if node is None or not commuted(node):
        return None
    base, other = commuted(node)[0]
    squared = base is other if node.op_type == "Mul" else number(site, other, base) == 2.0
    return Part(base, (node,)) if squared else None


def centred(site: Site, value: ir.Value, axes: tuple[int, ...]) -> Part | None:
    """Read `value` as `source - mean(source)` over `axes`."""
    sub = site.producer(value, "Sub")
    if sub is None or not commuted(sub):
        return None
    source, other = commuted(sub)[0]
    mean = site.producer(other, "ReduceMean")
    if mean is None or mean.inputs[0] is not source or mean_axes(site, mean) != axes:
        return None
    return Part(source, (sub, mean))


def power(site: Site, value: ir.Value, exponent: float) -> Part | None:
    """Read `value` as `source ** exponent`, for 0.5 and -0.5, in any spelling."""
    start = uncast(site, value)
    node = site.producer(start.source, "Sqrt", "Pow", "Reciprocal", "Div")
    base = None if node is None else node.inputs[0]
    if node is None or base is None:
        return None
    nodes = (*start.nodes, node)
    if node.op_type == "Sqrt":
        return Part(base, nodes) if exponent == 0.5 else None
    if node.op_type == "Pow":
        found = number(site, node.inputs[1], base) == exponent
        return Part(base, nodes) if found else None
    if node.op_type == "Div":
        inverted = node.inputs[1]
        if inverted is None or number(site, base, inverted) != 1.0:
            return None
        base = inverted
    deeper = power(site, base, -exponent)
    return None if deeper is None else Part(deeper.source, (*nodes, *deeper.nodes))


def offset_mean(site: Site, value: ir.Value) -> tuple[ir.Node, float | None, Nodes] | None:
    """Read `value` as `mean + epsilon`: the ReduceMean, the constant if any, and the nodes."""
    bare = site.producer(value, "ReduceMean")
    if bare is not None:
        return bare, None, (bare,)
    add = site.producer(value, "Add")
    if add is None:
        return None
    for left, right in commuted(add):
        epsilon, mean = number(site, right, left), site.producer(left, "ReduceMean")
        if mean is not None and epsilon is not None and epsilon >= 0:
            return mean, epsilon, (add, mean)
    return None


@dataclass(frozen=True)
class Deviation:
    """The reciprocal of a deviation, or the deviation: `mean(square) + epsilon` and its root.

    Attributes:
        squared: What is squared under the mean.
        axes: What the mean is over, from 0 and sorted.
        epsilon: The constant, or None where there is none.
        nodes: All of them.
    """

    squared: ir.Value
    axes: tuple[int, ...]
    epsilon: float | None
    nodes: Nodes


def deviation(site: Site, value: ir.Value, exponent: float) -> Deviation | None:
    """Read `value` as `(mean(squared^2) + epsilon) ** exponent`."""
    root = power(site, value, exponent)
    found = None if root is None else offset_mean(site, root.source)
    if root is None or found is None:
        return None
    mean, epsilon, nodes = found
    axes, part = mean_axes(site, mean), square(site, mean.inputs[0])
    if axes is None or part is None:
        return None
    return Deviation(part.source, axes, epsilon, (*root.nodes, *nodes, *part.nodes))


def is_all(tensor: ir.TensorProtocol | None, wanted: float) -> bool:
    """Whether every element of a constant is this number."""
    return tensor is not None and bool((tensor.numpy() == wanted).all())


def broadcasts(shape: Sequence[int], sizes: Sequence[int], rank: int) -> bool:
    """Whether `shape` broadcasts to `sizes`, the last of `rank` dimensions, and enlarges none."""
    extra = max(0, len(shape) - len(sizes))
    if len(shape) > rank or any(size != 1 for size in shape[:extra]):
        return False
    pairs = zip(reversed(shape[extra:]), reversed(sizes), strict=False)
    return all(size in (1, wanted) for size, wanted in pairs)
