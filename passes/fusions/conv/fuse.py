"""Takes what surrounds a convolution into it. Outputs change by rounding only."""

from __future__ import annotations

from leptonc.passes.fusions.conv import affine, pads
from leptonc.passes.fusions.conv import input as first_layer
from leptonc.passes.rewriting.rule_pass import RulePass

FUSE_CONVOLUTION = RulePass(
    "fuse-convolution", __doc__, (*affine.RULES, *pads.RULES, *first_layer.RULES)
)
