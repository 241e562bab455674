"""Attention from its primitive form to one node."""

from __future__ import annotations

from leptonc.passes.fusions.attention import guard, multi_head, one_product, packed, standard, turn
from leptonc.passes.rewriting.rule_pass import RulePass

FUSE_ATTENTION = RulePass(
    "fuse-attention",
    __doc__,
    # Each brings a spelling of an exporter into the common one.
    (packed.RULE, turn.RULE, guard.RULE),
    # At each product the first rule that may be applied is.
    then=(*multi_head.RULES, *standard.RULES),
)

LOWER_ATTENTION = RulePass(
    "lower-attention", "Joins attention with the layer that it reads.", (one_product.RULE,)
)

SPLIT_ATTENTION = RulePass(
    "split-attention",
    "Takes attention that came packed off the layer that it reads, before there are integers.",
    (one_product.APART,),
)
