"""The rotation of column pairs by a quarter turn, which rotary embeddings are made of.

    halves: [-x[R/2:], x[:R/2]]                       Concat(Neg(Slice), Slice)
    pairs:  [-x[1], x[0], -x[3], x[2], ...]           Reshape(Concat(Neg(odd)[..., None],
                                                                     even[..., None], axis=-1))

over the last axis; Split may stand for the slices, and a product with -1 for Neg.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.fusions.rotary.column_parts import common_parts, last_axis, parts
from leptonc.passes.graph.constants import constant_ints
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
    return _halves(site, value, x) or _pairs(site, value, x)


def _halves(site: Site, value: ir.Value, x: ir.Value) -> Turn | None:
    concat = site.producer(value, "Concat")
    if concat is None or len(concat.inputs) != 2 or not last_axis(site, concat, value):
        return None
    negation = _negated(site, concat.inputs[0])
    if negation is None:
        return None
    node, negative = negation
    same = is_split(site, x, concat.inputs[1], negative, pairs=False)
    return Turn(False, (node, concat)) if same else None


def _pairs(site: Site, value: ir.Value, x: ir.Value) -> Turn | None:
    nodes = site.chain(value, "Reshape", "Concat")
    if nodes is None or len(nodes[1].inputs) != 2:
        return None
    reshape, concat = nodes
    if not last_axis(site, concat, concat.outputs[0]):
        return None
    odd, even = (added_column(site, column) for column in concat.inputs)
    negation = None if odd is None else _negated(site, odd.inputs[0])
    if odd is None or even is None or negation is None:
        return None
    node, negative = negation
    dims = site.facts.symbolic(x)
    if dims is None or dims != site.facts.symbolic(value):
        return None
    if not is_split(site, x, even.inputs[0], negative, pairs=True):
        return None
    return Turn(True, (node, odd, even, concat, reshape))


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
