"""The rotation of column pairs by a quarter turn, which rotary embeddings are made of.

    halves: [-x[R/2:], x[:R/2]]                       Concat(Neg(Slice), Slice)
    pairs:  [-x[1], x[0], -x[3], x[2], ...]           Reshape(Concat(Neg(odd)[..., None],
                                                                     even[..., None], axis=-1))

over the last axis; Split may stand for the slices, and a product with -1 for Neg.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.fusions.rotary.column_parts import is_split, joined
from leptonc.passes.rewriting.site import Site, commuted


@dataclass(frozen=True)
class Turn:
    """A quarter turn.

    Attributes:
        pairs: Neighbours are turned; otherwise columns half the width apart.
        nodes: Those that make the turn, apart from the slices.
    """

    pairs: bool
    nodes: tuple[ir.Node, ...]


def find_turn(site: Site, value: ir.Value, x: ir.Value) -> Turn | None:
    """Return how `value` is the quarter turn of `x`, or None."""
    whole = joined(site, value)
    negation = None if whole is None else _negated(site, whole.first)
    if whole is None or negation is None or not whole.as_wide_as(site, x):
        return None
    node, negative = negation
    same = is_split(site, x, whole.second, negative, pairs=whole.pairs)
    return Turn(whole.pairs, (node, *whole.nodes)) if same else None


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
