"""The rotation of column pairs by a quarter turn, which rotary embeddings are made of.

    halves: [-x[R/2:], x[:R/2]]                       Concat(Neg(Slice), Slice)
    pairs:  [-x[1], x[0], -x[3], x[2], ...]           Reshape(Concat(Neg(odd)[..., None],
                                                                     even[..., None], axis=-1))

over the last axis; Split may stand for the slices, and a product with -1 for Neg.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.constants import constant_ints
from leptonc.passes.fusions.rotary_parts import Part, last_axis, part_of
from leptonc.passes.site import Site, commuted


@dataclass(frozen=True)
class Turn:
    """A quarter turn.

    Attributes:
        source: What is turned.
        pairs: Neighbours are turned; otherwise columns half the width apart.
        nodes: Those that make the turn, apart from the slices.
    """

    source: ir.Value
    pairs: bool
    nodes: tuple[ir.Node, ...]


def find_turn(site: Site, value: ir.Value) -> Turn | None:
    """Return what `value` is the quarter turn of, or None."""
    return _halves(site, value) or _pairs(site, value)


def _halves(site: Site, value: ir.Value) -> Turn | None:
    concat = site.producer(value, "Concat")
    if concat is None or len(concat.inputs) != 2 or not last_axis(site, concat, value):
        return None
    negation = _negated(site, concat.inputs[0])
    if negation is None:
        return None
    node, negative = negation
    high, low = part_of(site, negative), part_of(site, concat.inputs[1])
    if high is None or low is None or low.length % 2:
        return None
    half = low.length // 2
    if not _fits(low, high, range(half), range(half, low.length)):
        return None
    return Turn(low.source, False, (node, concat))


def _pairs(site: Site, value: ir.Value) -> Turn | None:
    reshape = site.producer(value, "Reshape")
    concat = None if reshape is None else site.producer(reshape.inputs[0], "Concat")
    if reshape is None or concat is None or len(concat.inputs) != 2:
        return None
    if not last_axis(site, concat, concat.outputs[0]):
        return None
    thin = [added_column(site, column) for column in concat.inputs]
    negation = None if thin[0] is None else _negated(site, thin[0].inputs[0])
    if thin[0] is None or thin[1] is None or negation is None:
        return None
    node, negative = negation
    odd, even = part_of(site, negative), part_of(site, thin[1].inputs[0])
    if odd is None or even is None or even.length % 2:
        return None
    length = even.length
    if not _fits(even, odd, range(0, length, 2), range(1, length, 2)):
        return None
    dims = site.facts.symbolic(even.source)
    if dims is None or dims != site.facts.symbolic(value):
        return None
    return Turn(even.source, True, (node, thin[0], thin[1], concat, reshape))


def _fits(one: Part, other: Part, positions: range, others: range) -> bool:
    same = one.source is other.source and len(positions) > 0
    return same and one.positions == positions and other.positions == others


def added_column(site: Site, value: ir.Value | None) -> ir.Node | None:
    """Return the Unsqueeze that adds a last axis."""
    node = site.producer(value, "Unsqueeze")
    rank = site.facts.rank(value)
    if node is None or rank is None or len(node.inputs) != 2:
        return None
    return node if constant_ints(node.inputs[1]) in ((-1,), (rank - 1,)) else None


def _negated(site: Site, value: ir.Value | None) -> tuple[ir.Node, ir.Value] | None:
    node = site.producer(value, "Neg", "Mul")
    if node is None:
        return None
    if node.op_type == "Neg":
        return None if node.inputs[0] is None else (node, node.inputs[0])
    for factor, other in commuted(node):
        tensor = site.tensor(factor)
        if tensor is not None and len(tensor.shape) <= 1 and site.scalar(factor) == -1:
            return node, other
    return None
