"""Joins sums with what normalises or activates them. Outputs change by rounding only.

It runs last: a sum that something else can take in is better there.
"""

from __future__ import annotations

from leptonc.passes.fusions.residual import bias, skip_norm
from leptonc.passes.rewriting.rule_pass import RulePass

FUSE_RESIDUAL = RulePass("fuse-residual", __doc__, (*skip_norm.RULES, *bias.RULES))
