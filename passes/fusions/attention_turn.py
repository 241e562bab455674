"""Turning the last two axes of keys, as exporters write it for any rank. Exact.

[B, N, T, D] -> Reshape [B*N, T, D] -> Transpose [B*N, D, T] -> Reshape [B, N, D, T]
    = Transpose [B, N, D, T]
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.build import Build
from leptonc.passes.rule import Rewritten, Rule
from leptonc.passes.site import Site


@dataclass(frozen=True)
class _Turn:
    before: ir.Value


def _pattern(site: Site) -> _Turn | None:
    turn = site.producer(site.input(0), "Transpose")
    flat = None if turn is None else site.producer(turn.inputs[0], "Reshape")
    if turn is None or flat is None or flat.inputs[0] is None:
        return None
    if tuple(turn.attributes.get_ints("perm") or ()) != (0, 2, 1):
        return None
    return _Turn(flat.inputs[0])


def _check(site: Site, match: _Turn) -> str | None:
    turn = site.producer(site.input(0), "Transpose")
    assert turn is not None
    before, middle = site.facts.symbolic(match.before), site.facts.symbolic(turn.inputs[0])
    after = site.facts.symbolic(site.node.outputs[0])
    if before is None or middle is None or after is None or len(before) < 2:
        return "the dimensions are not known"
    if middle[1:] != before[-2:]:
        return "the last two axes are not kept"
    if after != (*before[:-2], before[-1], before[-2]):
        return "the first axes are not restored"
    return None


def _rewrite(site: Site, match: _Turn, build: Build) -> Rewritten:
    rank = site.facts.rank(site.node.outputs[0]) or 0
    perm = [*range(rank - 2), rank - 1, rank - 2]
    old = site.node.outputs[0]
    return {old: build.op("Transpose", [match.before], {"perm": perm}, like=old)}


RULE: Rule[_Turn] = Rule("turn-last-axes", ("Reshape",), _pattern, _check, _rewrite)
