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
from leptonc.passes.fusions.rotary.column_parts import Joined, common_parts, is_split, joined, parts
from leptonc.passes.fusions.rotary.layout import Heads, find_heads
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


def by_products(site: Site) -> Rotation | None:
    """Match two parts put together, each a sum or difference of products."""
    whole = joined(site, site.node.outputs[0])
    if whole is None:
        return None
    minus, plus = _products(site, whole.first, "Sub"), _products(site, whole.second, "Add")
    if len(minus) != 3 or len(plus) != 3:
        return None
    sums = [set(product.inputs) for product in plus[:2]]
    for a, cos in commuted(minus[0]):
        for b, sin in commuted(minus[1]):
            wanted = [{b, cos}, {a, sin}]
            source = _source(site, a, b, whole) if sums in (wanted, wanted[::-1]) else None
            if source is None:
                continue
            half = number((site.facts.dims(source) or (0,))[-1] or 0).over(number(2))
            heads = find_heads(site, source, cos, sin, half)
            inside = (*minus, *plus, *whole.nodes[:-1])
            return Rotation(source, whole.pairs, cos, sin, False, heads, inside)
    return None


def _products(site: Site, value: ir.Value | None, op_type: str) -> tuple[ir.Node, ...]:
    """Return the two products that `value` is the sum or difference of, and its own node."""
    node = site.producer(value, op_type)
    terms = () if node is None else node.inputs
    products = [site.producer(term, "Mul") for term in terms]
    found = [each for each in (*products, node) if each is not None and commuted(each)]
    return tuple(found)


def _source(site: Site, a: ir.Value, b: ir.Value, whole: Joined) -> ir.Value | None:
    """Return what `a` and `b` are the first and the second columns of, in the shape of all."""
    for one, _ in common_parts(parts(site, a), parts(site, b)):
        if is_split(site, one.source, a, b, pairs=whole.pairs):
            return one.source if whole.as_wide_as(site, one.source) else None
    return None
