"""Recognises activation functions. Outputs change by rounding only."""

from __future__ import annotations

from leptonc.passes.fusions.activation import gelu, hard_swish, mish, sigmoid
from leptonc.passes.rewriting.rule_pass import RulePass

FUSE_ACTIVATION = RulePass(
    "fuse-activation",
    __doc__,
    (*gelu.RULES, *sigmoid.RULES, *hard_swish.RULES, *mish.RULES),
)
