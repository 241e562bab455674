"""Removes the guard behind a Softmax that never has a row without any key.

    p = Softmax(scores);  Where(IsNaN(p), 0, p) = p

Softmax answers NaN for a row of nothing but -inf. Where what is added to the products is known to
leave one number in each row, finite inputs make no such row, and the guard only keeps engines
from seeing the attention.
"""

from __future__ import annotations

from leptonc.passes.fusions.attention.core import guarded_value
from leptonc.passes.fusions.attention.mask import total_bounds
from leptonc.passes.fusions.attention.scores import Scores, read_scores
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site


def _pattern(site: Site) -> Scores | None:
    if len(site.node.inputs) != 3:
        return None
    softmax = site.producer(guarded_value(site, site.node), "Softmax")
    return None if softmax is None else read_scores(site, softmax.inputs[0])


def _check(site: Site, match: Scores) -> str | None:
    dtype = site.facts.dtype(match.nodes[0].outputs[0])
    total = None if dtype is None else total_bounds(site, match.terms, dtype)
    if total is None or total.empty_rows:
        return "the mask might have a row of nothing but -inf"
    return None


def _rewrite(site: Site, match: Scores, build: Build) -> Rewritten:
    del match, build
    kept = site.input(2)
    assert kept is not None
    return {site.node.outputs[0]: kept}


RULE: Rule[Scores] = Rule("attention-guard", ("Where",), _pattern, _check, _rewrite)
