"""Rotary position embeddings, from their primitive form to one node.

With T the quarter turn of column pairs (see `rotary_turns`),

    x * cos + T(x) * sin  ->  RotaryEmbedding(x, cos', sin')

where cos' and sin' hold one column of each two (see `rotary_tables`): for the pair of columns
(a, b) with the angle t both sides are (a cos t - b sin t, b cos t + a sin t). Columns half the
width apart make `interleaved = 0`, neighbours `interleaved = 1`.

x is [B, N, S, R] with tables that broadcast over N, or [B, S, N, R], which is turned as
[B, S, N*R], or [B, S, R], one head. Tables must be as long as S, and have the batch of x or 1.

`RotaryEmbedding` of opset 23 takes tables [B, S, R/2]. ONNX Runtime's own takes tables [S, R/2]
and the offset 0 where they are the same for all of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.build import Build
from leptonc.passes.fusions.rotary_emit import TYPES, Attributes, embed
from leptonc.passes.fusions.rotary_layout import Heads, find_heads
from leptonc.passes.fusions.rotary_tables import Table, find_table
from leptonc.passes.fusions.rotary_turns import Turn, find_turn
from leptonc.passes.rule import GENERIC, ORT_CPU, ORT_CUDA, Rewritten, Rule
from leptonc.passes.site import Site, commuted


@dataclass(frozen=True)
class Rotation:
    """`x * cos + T(x) * sin`.

    Attributes:
        turn: The quarter turn of x.
        cos: The cosines, every column twice.
        sin: The sines, every column twice.
        heads: Where the heads and the positions of x are; None when that is not known.
        nodes: All nodes of the form but the slices.
    """

    turn: Turn
    cos: ir.Value
    sin: ir.Value
    heads: Heads | None
    nodes: tuple[ir.Node, ...]


def _rotation(site: Site) -> Rotation | None:
    for plain, turned in commuted(site.node):
        product = site.producer(turned, "Mul")
        other = site.producer(plain, "Mul")
        if product is None or other is None:
            continue
        for candidate, sin in commuted(product):
            turn = find_turn(site, candidate)
            if turn is None:
                continue
            for source, cos in commuted(other):
                if source is turn.source:
                    heads = find_heads(site, turn.source, cos, sin)
                    return Rotation(turn, cos, sin, heads, (*turn.nodes, product, other))
    return None


def _shared(site: Site) -> Rotation | None:
    """Match a rotation that is the same for all of the batch."""
    match = _rotation(site)
    return match if match is not None and (match.heads is None or match.heads.shared) else None


def _per_batch(site: Site) -> Rotation | None:
    match = _rotation(site)
    return match if match is not None and match.heads and not match.heads.shared else None


def _check(site: Site, match: Rotation) -> str | None:
    out = site.node.outputs[0]
    dtype = site.facts.dtype(match.turn.source)
    if dtype not in TYPES[site.target]:
        return f"the operator is not made for {dtype.name if dtype else 'an unknown type'}"
    if match.heads is None:
        return "the tables are not known to have one row for each position"
    inside = {*match.nodes, site.node}
    for node in match.nodes:
        reader = site.read_elsewhere(node.outputs[0], inside)
        if reader is not None:
            return reader
    for name, value in (("cosines", match.cos), ("sines", match.sin)):
        table = find_table(site, value, pairs=match.turn.pairs)
        if table is None:
            return f"the {name} {value.name!r} are not proven to hold each column twice"
        if not match.heads.accepts(table.dims):
            return f"the {name} {value.name!r} have their positions in another order"
    if site.facts.rank(out) != site.facts.rank(match.turn.source):
        return "the tables have more dimensions"
    return None


def _rewrite(site: Site, match: Rotation, build: Build) -> Rewritten:
    assert match.heads is not None
    tables: list[Table] = []
    for value in (match.cos, match.sin):
        table = find_table(site, value, pairs=match.turn.pairs)
        assert table is not None
        tables.append(table)
    out = site.node.outputs[0]
    attributes: Attributes = {"interleaved": 1} if match.turn.pairs else {}
    return {out: embed(site, build, match.turn.source, tables, match.heads, attributes, out)}


_ORT = frozenset({ORT_CPU, ORT_CUDA})

RULES = (
    Rule(
        "rotary-embedding", ("Add",), _rotation, _check, _rewrite, frozenset({GENERIC}), opset=23
    ),
    Rule("rotary-embedding-shared", ("Add",), _shared, _check, _rewrite, _ORT),
    Rule("rotary-embedding", ("Add",), _per_batch, _check, _rewrite, _ORT, opset=23),
)
