"""Linear layers: products of matrices, their biases and their factors.

In parts, around the recognition of attention, rotary embedding and normalisation: first
the layer is brought into one form; what it is best merged with comes when the rest is known.
"""

from __future__ import annotations

from leptonc.passes.fusions.linear import (
    chain,
    einsum,
    engine_products,
    factors,
    gemm,
    pack,
    reshape,
    scale,
    scores,
)
from leptonc.passes.rewriting.rule_pass import RulePass

# They hide no pattern that other rules look for.
PLAIN_LINEAR = RulePass("plain-linear", __doc__, (*einsum.RULES, *reshape.RULES, *factors.RULES))

FUSE_LINEAR = RulePass(
    "fuse-linear",
    __doc__,
    # Factors and biases find their way into weights.
    (*PLAIN_LINEAR.rules, *chain.RULES, *scale.RULES),
    # Then nodes are merged: a packed layer takes no factor for one of its parts.
    then=(*gemm.RULES, *pack.RULES, *scores.RULES),
)

LOWER_LINEAR = RulePass(
    "lower-linear",
    "Takes what surrounds a product into it, where the engine has that.",
    engine_products.RULES,
)
