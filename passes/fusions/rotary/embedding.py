"""Rotary position embeddings, from their primitive forms to one node.

A rotation turns the pair of columns (a, b) by the angle t to

    (a cos t - b sin t, b cos t + a sin t)

Exporters write it with T, the quarter turn (a, b) -> (-b, a) (see `turns`), and tables
that hold each column twice (see `tables`); or product by product (see `products`):

    x * cos + T(x) * sin                            ->  RotaryEmbedding(x, cos', sin')
    Concat(a * cos' - b * sin', b * cos' + a * sin')  ->  RotaryEmbedding(x, cos', sin')

where cos' and sin' have one column for each pair. Columns half the width apart make
`interleaved = 0`, neighbours `interleaved = 1`.

x is [B, N, S, R] with tables that broadcast over N, or [B, S, N, R], which is turned as
[B, S, N*R], or [B, S, R], one head. Tables must be as long as S, and have the batch of x or 1.

`RotaryEmbedding` of opset 23 takes tables [B, S, R/2]. ONNX Runtime's own takes tables [S, R/2]
and the offset 0 where they are the same for all of the batch.
"""

from __future__ import annotations

from leptonc.passes.fusions.rotary.emit import TYPES, embed
from leptonc.passes.fusions.rotary.layout import find_heads
from leptonc.passes.fusions.rotary.products import Rotation, by_products
from leptonc.passes.fusions.rotary.tables import Table, find_table
from leptonc.passes.fusions.rotary.turns import find_turn
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.scalars import read_outside
from leptonc.passes.rewriting.site import Site, commuted
from leptonc.passes.targets import CONTRIB, GENERIC


def _by_turn(site: Site) -> Rotation | None:
    for plain, turned in commuted(site.node):
        product = site.producer(turned, "Mul")
        other = site.producer(plain, "Mul")
        if product is None or other is None:
            continue
        for x, cos in commuted(other):
            for candidate, sin in commuted(product):
                turn = find_turn(site, candidate, x)
                if turn is not None:
                    heads = find_heads(site, x, cos, sin)
                    nodes = (*turn.nodes, product, other)
                    return Rotation(x, turn.pairs, cos, sin, True, heads, nodes)
    return None


def _rotation(site: Site) -> Rotation | None:
    return _by_turn(site) if site.node.op_type == "Add" else by_products(site)


def _shared(site: Site) -> Rotation | None:
    """Match a rotation that is the same for all of the batch."""
    match = _rotation(site)
    return match if match is not None and (match.heads is None or match.heads.shared) else None


def _per_batch(site: Site) -> Rotation | None:
    match = _rotation(site)
    return match if match is not None and match.heads and not match.heads.shared else None


def _check(site: Site, match: Rotation) -> str | None:
    dtype = site.facts.dtype(match.source)
    if dtype not in TYPES[site.target]:
        return f"the operator is not made for {dtype.name if dtype else 'an unknown type'}"
    if match.heads is None:
        return "the tables are not known to have one row for each position"
    reader = read_outside(site, match.nodes)
    if reader is not None:
        return reader
    for name, value in (("cosines", match.cos), ("sines", match.sin)):
        table = _table(site, match, name)
        if table is None:
            return f"the {name} {value.name!r} are not proven to hold each column twice"
        if not match.heads.accepts(table.dims):
            return f"the {name} {value.name!r} have their positions in another order"
    return None


def _table(site: Site, match: Rotation, name: str) -> Table | None:
    value = match.cos if name == "cosines" else match.sin
    if match.doubled:
        return find_table(site, value, pairs=match.pairs)
    dims = site.facts.symbolic(value)
    return None if dims is None else Table(value, None, (), dims)


def _rewrite(site: Site, match: Rotation, build: Build) -> Rewritten:
    tables = [_table(site, match, name) for name in ("cosines", "sines")]
    known = [table for table in tables if table is not None]
    assert match.heads is not None
    assert len(known) == len(tables)
    out = site.node.outputs[0]
    x, pairs = match.source, match.pairs
    return {out: embed(site, build, x, known, match.heads, pairs=pairs, like=out)}


_ANCHORS = ("Add", "Concat", "Reshape")

RULES = (
    Rule("rotary", _ANCHORS, _rotation, _check, _rewrite, frozenset({GENERIC}), opset=23),
    Rule("rotary-shared", _ANCHORS, _shared, _check, _rewrite, CONTRIB),
    Rule("rotary", _ANCHORS, _per_batch, _check, _rewrite, CONTRIB, opset=23),
)
