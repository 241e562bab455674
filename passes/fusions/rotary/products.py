"""Rotations that are written product by product.

With a and b the two columns of each pair, as slices of x:

    halves: Concat(a * c - b * s, b * c + a * s, axis=-1)
    pairs:  Reshape(Concat((a * c - b * s)[..., None], (b * c + a * s)[..., None], axis=-1))

c and s have one column for each pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.sizes import number
from leptonc.passes.fusions.rotary.column_parts import common_parts, last_axis, parts
from leptonc.passes.fusions.rotary.layout import Heads, find_heads
from leptonc.passes.fusions.rotary.turns import added_column, is_split
from leptonc.passes.rewriting.site import Site, commuted


@dataclass(frozen=True)
class Rotation:
    """A rotation in any of its primitive forms.

    Attributes:
        source: What is rotated.
        pairs: Neighbours make a pair; otherwise columns half the width apart.
        cos: The cosines.
        sin: The sines.
        doubled: The tables hold every column twice.
        heads: Where the heads and the positions are; None when that is not known.
        nodes: All nodes of the form but the slices and the last.
    """

    source: ir.Value
    pairs: bool
    cos: ir.Value
    sin: ir.Value
    doubled: bool
    heads: Heads | None
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True)
class _Factors:
    """The four factors of `first * second (+ or -) third * fourth`."""

    left: tuple[ir.Value, ir.Value]
    right: tuple[ir.Value, ir.Value]
    nodes: tuple[ir.Node, ...]


def by_halves(site: Site) -> Rotation | None:
    """Match Concat of the two halves."""
    node = site.node
    if len(node.inputs) != 2 or not last_axis(site, node, node.outputs[0]):
        return None
    return _rotation(site, node.inputs[0], node.inputs[1], (), pairs=False)


def by_pairs(site: Site) -> Rotation | None:
    """Match the neighbours put side by side."""
    concat = site.producer(site.input(0), "Concat")
    if concat is None or len(concat.inputs) != 2:
        return None
    if not last_axis(site, concat, concat.outputs[0]):
        return None
    real, imaginary = (added_column(site, value) for value in concat.inputs)
    if real is None or imaginary is None:
        return None
    nodes = (real, imaginary, concat)
    found = _rotation(site, real.inputs[0], imaginary.inputs[0], nodes, pairs=True)
    if found is None:
        return None
    dims = site.facts.symbolic(found.source)
    return found if dims is not None and dims == site.facts.symbolic(site.node.outputs[0]) else None


def _rotation(
    site: Site,
    real: ir.Value | None,
    imaginary: ir.Value | None,
    nodes: tuple[ir.Node, ...],
    *,
    pairs: bool,
) -> Rotation | None:
    minus, plus = _factors(site, real, "Sub"), _factors(site, imaginary, "Add")
    if minus is None or plus is None:
        return None
    for a, cos in (minus.left, minus.left[::-1]):
        for b, sin in (minus.right, minus.right[::-1]):
            wanted = [{b, cos}, {a, sin}]
            sums = [set(plus.left), set(plus.right)]
            if sums not in (wanted, wanted[::-1]):
                continue
            source = _source(site, a, b, pairs=pairs)
            if source is None:
                continue
            half = number((site.facts.dims(source) or (0,))[-1] or 0).over(number(2))
            heads = find_heads(site, source, cos, sin, half)
            inside = (*minus.nodes, *plus.nodes, *nodes)
            return Rotation(source, pairs, cos, sin, False, heads, inside)
    return None


def _factors(site: Site, value: ir.Value | None, op_type: str) -> _Factors | None:
    node = site.producer(value, op_type)
    if node is None or len(node.inputs) != 2:
        return None
    products = [site.producer(term, "Mul") for term in node.inputs]
    known = [product for product in products if product is not None]
    pairs = [commuted(product)[0] for product in known if commuted(product)]
    if len(pairs) != 2:
        return None
    return _Factors(pairs[0], pairs[1], (*known, node))


def _source(site: Site, a: ir.Value, b: ir.Value, *, pairs: bool) -> ir.Value | None:
    """Return what `a` and `b` are the first and the second columns of."""
    for one, _ in common_parts(parts(site, a), parts(site, b)):
        if is_split(site, one.source, a, b, pairs=pairs):
            return one.source
    return None
