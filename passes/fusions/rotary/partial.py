"""Rotary embeddings of the first columns only, from slices to an attribute.

With R of the D columns rotated:

    Concat(RotaryEmbedding(x[..., :R]), x[..., R:])  ->  RotaryEmbedding(x, rotary_embedding_dim=R)

x may be a part of the columns itself, and is sliced off then. It is [B, N, S, D]; or [B, S, N, D], of which [B, S, N*R] was rotated, and [B, S, N*D] is then.
Moves and copies only: every output keeps its bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.sizes import number
from leptonc.passes.fusions.rotary.column_parts import common_parts, last_axis, parts
from leptonc.passes.fusions.rotary.read import Rotary, read_rotary
from leptonc.passes.fusions.rotary.tables import Sizes
from leptonc.passes.graph.constants import constant_ints
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.reuse import ints
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site
from leptonc.passes.targets import GENERIC, ORT_CPU, ORT_CUDA


@dataclass(frozen=True)
class Partial:
    """A rotation of the first columns.

    Attributes:
        rotary: The rotation.
        source: What holds all columns.
        window: Where they are in the last axis of `source`.
        width: How many are rotated.
        rows: The heads are rotated as `[B, S, N*R]`: three axes.
        between: Values between the rotation and the Concat.
    """

    rotary: Rotary
    source: ir.Value
    window: range
    width: int
    rows: bool
    between: tuple[ir.Value, ...]


def _partial(site: Site) -> Partial | None:
    out = site.node.outputs[0]
    if len(site.node.inputs) != 2 or not last_axis(site, site.node, out):
        return None
    head = site.input(0)
    if head is None or site.facts.rank(out) != 4:
        return None
    reshape = site.producer(head, "Reshape")
    rotary = read_rotary(site, head if reshape is None else reshape.inputs[0])
    if rotary is None:
        return None
    before = site.producer(rotary.x, "Reshape") if reshape is not None else None
    if reshape is not None and before is None:
        return None
    between = (head,) if reshape is None else (head, rotary.node.outputs[0])
    rotated = rotary.x if before is None else before.inputs[0]
    for front, tail in common_parts(parts(site, rotated), parts(site, site.input(1))):
        one, other = front.positions, tail.positions
        # TorchScript splits off the columns behind the rotated ones even where there are none.
        beside = not other or (one.stop == other.start and one.step == other.step == 1)
        if one.step == 1 and beside:
            window = range(one.start, one.stop + len(other))
            rows = reshape is not None
            return Partial(rotary, front.source, window, len(one), rows, between)
    return None


def _check(site: Site, match: Partial) -> str | None:
    inside = {site.node, *(use.node for value in match.between[1:] for use in value.uses())}
    for value in match.between:
        reader = site.read_elsewhere(value, inside)
        if reader is not None:
            return reader
    if match.rotary.width not in (0, match.width):
        return "the slice itself is rotated in part"
    dims = site.facts.symbolic(match.source)
    if dims is None:
        return f"the shape of {match.source.name!r} is not known"
    if not match.rows:
        known = dims[1].number is not None or not match.rotary.own
        return None if known else f"the number of heads of {match.source.name!r} is not known"
    if dims[2].number is None or match.rotary.heads != dims[2].number:
        return f"the heads of {match.source.name!r} are not those that are rotated"
    rows = (*dims[:2], number(match.rotary.heads * match.width))
    if not has_dims(site, match.rotary.x, rows):
        return f"{match.rotary.x.name!r} is not the heads of each position side by side"
    if not has_dims(site, match.between[0], (*dims[:3], number(match.width))):
        return f"{match.between[0].name!r} has other heads than the slice"
    return None


def has_dims(site: Site, value: ir.Value, dims: Sizes) -> bool:
    """Whether `value`, a Reshape of something that begins with dims[:2], has these dimensions."""
    known = site.facts.symbolic(value)
    if known is not None:
        return known == dims
    node = site.producer(value, "Reshape")
    if node is None or node.attributes.get_int("allowzero", 0) != 0:
        return False
    return constant_ints(node.inputs[1]) == (0, 0, *(size.number for size in dims[2:]))


def _rewrite(site: Site, match: Partial, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    dims = site.facts.symbolic(match.source)
    assert dims is not None
    length, x = len(match.window), match.source
    if dims[-1] != number(length):
        bounds = [ints(build, edge) for edge in (match.window.start, match.window.stop, -1)]
        x = build.op("Slice", [x, *bounds], like=out)
    width = match.width if match.width < length else 0
    if not match.rows:
        heads = (dims[1].number or 0) if match.rotary.own else 0
        turned = match.rotary.again(build, x, out, rotary_embedding_dim=width, num_heads=heads)
        return {out: turned}
    count = dims[2].number
    assert count is not None
    rows = build.op("Reshape", [x, ints(build, 0, 0, count * length)])
    turned = match.rotary.again(build, rows, None, rotary_embedding_dim=width)
    return {out: build.op("Reshape", [turned, ints(build, 0, 0, count, length)], like=out)}


RULES = (
    Rule(
        "rotary-partial",
        ("Concat",),
        _partial,
        _check,
        _rewrite,
        frozenset({GENERIC, ORT_CPU, ORT_CUDA}),
    ),
)
