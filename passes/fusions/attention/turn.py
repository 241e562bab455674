"""Turning the last two axes of keys, as exporters write it for any rank. Exact.

[B, N, T, D] -> Reshape [B*N, T, D] -> Transpose [B*N, D, T] -> Reshape [B, N, D, T]
    = Transpose [B, N, D, T]

What was shaped in between may have been shaped before as well: then one Reshape stays in front.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site


def _pattern(site: Site) -> ir.Value | None:
    nodes = site.chain(site.input(0), "Transpose", "Reshape")
    if nodes is None or site.at(nodes[0]).attribute_ints("perm") != (0, 2, 1):
        return None
    return nodes[1].inputs[0]


def _check(site: Site, before: ir.Value) -> str | None:
    values = (before, site.before(site.input(0), "Transpose"), site.node.outputs[0])
    whole, middle, after = (site.facts.symbolic(value) for value in values)
    if whole is None or middle is None or after is None or len(whole) < 2:
        return "the dimensions are not known"
    if len(middle) != 3 or middle[1:] != whole[-2:]:
        return "the last two axes are not kept"
    if len(after) < 2 or after[-2:] != (whole[-1], whole[-2]):
        return "the last two axes are not turned"
    if after[:-2] != whole[:-2] and sum(size.number is None for size in after) > 1:
        return "the first axes are not restored, nor known"
    return None


def _rewrite(site: Site, before: ir.Value, build: Build) -> Rewritten:
    old = site.node.outputs[0]
    after = site.facts.symbolic(old)
    assert after is not None
    rank = len(after)
    if after[:-2] != (site.facts.symbolic(before) or ())[:-2]:
        sizes = [-1 if size.number is None else size.number for size in after]
        shape = np.array([*sizes[:-2], sizes[-1], sizes[-2]], np.int64)
        before = build.op("Reshape", [before, build.constant(shape)])
    perm = [*range(rank - 2), rank - 1, rank - 2]
    return {old: build.op("Transpose", [before], {"perm": perm}, like=old)}


RULE: Rule[ir.Value] = Rule("turn-last-axes", ("Reshape",), _pattern, _check, _rewrite)
