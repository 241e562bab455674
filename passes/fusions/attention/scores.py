"""The scores of an attention: what its Softmax is taken of.

    scores = c * tanh(scale * (Q @ K^T) / c) + mask + bias + ...

Every part may be missing. The scale stands on Q, on K, on both (its square root on each), or on
the product; as Mul, as Div, or as the `alpha` of a FusedMatMul. A mask is added, or chosen:

    Where(keep, scores, fill)  =  scores + Where(keep, 0, fill)

which holds to the last bit but one where `fill` is so large that the scores vanish beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import onnx_ir as ir

from leptonc.passes.rewriting.site import Site, commuted

# Nobody adds more terms, and each is tried on both sides of its Add.
_MOST_TERMS = 6

# A float32 score beside this number is lost: it is smaller than half of the last place.
_LOSES_SCORES = -1e30


@dataclass(frozen=True)
class Choice:
    """A mask that is chosen instead of added.

    Attributes:
        condition: A boolean tensor.
        fill: What a masked score becomes; a constant.
        keeps: Whether `condition` is true where the score is kept, and not where it is masked.
    """

    condition: ir.Value
    fill: ir.Value
    keeps: bool


Term = ir.Value | Choice


@dataclass(frozen=True)
class Scores:
    """How scores are computed.

    Attributes:
        query: [batch, heads, rows, width], not scaled.
        key: [batch, heads, width, columns] (transposed), not scaled.
        scale: The factor on the product.
        softcap: `c` above, or 0.
        terms: What is added to the product, the first one first.
        nodes: All nodes of it, the last one first.
        product: The product of query and key.
    """

    query: ir.Value
    key: ir.Value
    scale: float
    softcap: float
    terms: tuple[Term, ...]
    nodes: tuple[ir.Node, ...]
    product: ir.Node


def read_scores(site: Site, value: ir.Value | None, depth: int = _MOST_TERMS) -> Scores | None:
    """Return how the scores `value` are computed, or None when they are no scores."""
    node = site.producer(value, "Add", "Where", "Mul", "Div", "MatMul", "com.microsoft.FusedMatMul")
    if node is None or depth == 0:
        return None
    if node.op_type == "Add":
        return _added(site, node, depth)
    if node.op_type == "Where":
        return _chosen(site, node, depth)
    if node.op_type in ("Mul", "Div"):
        return _capped(site, node, depth) or _scaled(site, node, depth)
    return _product(site, node)


def _added(site: Site, node: ir.Node, depth: int) -> Scores | None:
    for path, term in commuted(node):
        found = read_scores(site, path, depth - 1)
        if found is not None:
            return replace(found, terms=(*found.terms, term), nodes=(node, *found.nodes))
    return None


def _chosen(site: Site, node: ir.Node, depth: int) -> Scores | None:
    condition, then, other = node.inputs
    if condition is None or then is None or other is None:
        return None
    for path, fill, keeps in ((then, other, True), (other, then, False)):
        number = site.scalar(fill)
        if number is None or number > _LOSES_SCORES:
            continue
        found = read_scores(site, path, depth - 1)
        if found is not None:
            term = Choice(condition, fill, keeps)
            return replace(found, terms=(*found.terms, term), nodes=(node, *found.nodes))
    return None


def _capped(site: Site, node: ir.Node, depth: int) -> Scores | None:
    """Read `c * tanh(f * product)`, where the scale is `f * c`."""
    if node.op_type != "Mul":
        return None
    for path, factor in commuted(node):
        cap = site.scalar(factor)
        tanh = site.producer(path, "Tanh")
        if cap is None or tanh is None or not _is_plain(site, node, factor):
            continue
        if cap <= 0 or not math.isfinite(cap):
            continue
        found = read_scores(site, tanh.inputs[0], depth - 1)
        if found is None or found.terms or found.softcap:
            return None
        nodes = (node, tanh, *found.nodes)
        return replace(found, scale=found.scale * cap, softcap=cap, nodes=nodes)
    return None


def _scaled(site: Site, node: ir.Node, depth: int) -> Scores | None:
    split = scalar_factor(site, node)
    if split is None:
        return None
    path, factor = split
    found = read_scores(site, path, depth - 1)
    # Scaled terms are no masks.
    if found is None or found.terms or found.softcap:
        return None
    return replace(found, scale=found.scale * factor, nodes=(node, *found.nodes))


def _product(site: Site, node: ir.Node) -> Scores | None:
    if len(node.inputs) != 2 or node.inputs[0] is None or node.inputs[1] is None:
        return None
    attributes = node.attributes
    odd = ("transA", "transB", "transBatchA", "transBatchB")
    if node.domain and any(attributes.get_int(name, 0) for name in odd):
        return None
    factor = attributes.get_float("alpha", 1.0) if node.domain else 1.0
    query, by_query, on_query = peel_scale(site, node.inputs[0])
    key, by_key, on_key = peel_scale(site, node.inputs[1])
    # A product with a weight is a linear layer.
    if site.tensor(query) is not None or site.tensor(key) is not None:
        return None
    nodes = (node, *on_query, *on_key)
    return Scores(query, key, factor * by_query * by_key, 0.0, (), nodes, node)


def peel_scale(site: Site, value: ir.Value) -> tuple[ir.Value, float, tuple[ir.Node, ...]]:
    """Return `value` before it was multiplied by a number, the number, and the node that did."""
    node = site.producer(value, "Mul", "Div")
    split = None if node is None else scalar_factor(site, node)
    if node is None or split is None or site.read_elsewhere(value, _readers(value)[:1]):
        return value, 1.0, ()
    return split[0], split[1], (node,)


def _readers(value: ir.Value) -> list[ir.Node]:
    return [use.node for use in value.uses()]


def scalar_factor(site: Site, node: ir.Node) -> tuple[ir.Value, float] | None:
    """Return what a Mul or Div by one number multiplies, and by what."""
    for path, factor in commuted(node):
        number = site.scalar(factor)
        if number is None or not _is_plain(site, node, factor):
            continue
        if number <= 0 or not math.isfinite(number):
            continue
        return path, number if node.op_type == "Mul" else 1.0 / number
    return None


def _is_plain(site: Site, node: ir.Node, factor: ir.Value) -> bool:
    """Whether the one number is of floating point and adds no dimension to the result."""
    dtype, rank = site.facts.dtype(factor), site.facts.rank(factor)
    result = site.facts.rank(node.outputs[0])
    other = [value for value in node.inputs if value is not factor]
    whole = len(other) == 1 and site.facts.rank(other[0]) == result
    return dtype is not None and dtype.is_floating_point() and rank is not None and whole
