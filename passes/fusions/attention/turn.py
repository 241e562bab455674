"""Turning the last two axes of keys, as exporters write it for any rank. Exact.

[B, N, T, D] -> Reshape [B*N, T, D] -> Transpose [B*N, D, T] -> Reshape [B, N, D, T]
    = Transpose [B, N, D, T]

What was shaped in between may have been shaped before as well: then one Reshape stays in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site


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
    if len(middle) != 3 or middle[1:] != before[-2:]:
        return "the last two axes are not kept"
    if len(after) < 2 or after[-2:] != (before[-1], before[-2]):
        return "the last two axes are not turned"
    if after[:-2] != before[:-2] and sum(size.number is None for size in after) > 1:
        return "the first axes are not restored, nor known"
    return None


def _rewrite(site: Site, match: _Turn, build: Build) -> Rewritten:
    old, before = site.node.outputs[0], match.before
    after = site.facts.symbolic(old)
    assert after is not None
    rank = len(after)
    if after[:-2] != (site.facts.symbolic(before) or ())[:-2]:
        sizes = [-1 if size.number is None else size.number for size in after]
        shape = np.array([*sizes[:-2], sizes[-1], sizes[-2]], np.int64)
        before = build.op("Reshape", [before, build.constant(shape)])
    perm = [*range(rank - 2), rank - 1, rank - 2]
    return {old: build.op("Transpose", [before], {"perm": perm}, like=old)}


RULE: Rule[_Turn] = Rule("turn-last-axes", ("Reshape",), _pattern, _check, _rewrite)
