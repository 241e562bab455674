"""Recognises normalisation. Outputs change by rounding only."""

from __future__ import annotations

from leptonc.passes.fusions.norm import affine, core, group, split
from leptonc.passes.rewriting.rule_pass import RulePass

FUSE_NORMALIZATION = RulePass(
    "fuse-normalization",
    __doc__,
    (*affine.RULES, *group.RULES, *core.RULES, *split.RULES),
)
