"""Linear layers: products of matrices, their biases and their factors.

In two halves, around the recognition of attention, rotary embedding and normalisation: first
the layer is brought into one form; what it is best merged with comes when the rest is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.facts.facts import Facts, infer_facts
from leptonc.passes.fusions.linear import chain as linear_chain
from leptonc.passes.fusions.linear import einsum as linear_einsum
from leptonc.passes.fusions.linear import engine_products as linear_fused
from leptonc.passes.fusions.linear import factors as linear_factors
from leptonc.passes.fusions.linear import gemm as linear_gemm
from leptonc.passes.fusions.linear import pack as linear_pack
from leptonc.passes.fusions.linear import reshape as linear_reshape
from leptonc.passes.fusions.linear import scale as linear_scale
from leptonc.passes.fusions.linear import scores as linear_scores
from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rule

Rules = tuple[Rule[Any], ...]

# They hide no pattern that other rules look for.
CANONICAL_RULES: Rules = (*linear_einsum.RULES, *linear_reshape.RULES, *linear_factors.RULES)

# Factors and biases find their way into weights.
WEIGHT_RULES: Rules = (*CANONICAL_RULES, *linear_chain.RULES, *linear_scale.RULES)

# Then nodes are merged: a packed layer takes no factor for one of its parts.
MERGE_RULES: Rules = (
    *linear_gemm.RULES,
    *linear_pack.RULES,
    *linear_fused.RULES,
    *linear_scores.RULES,
)

LOWER_RULES: Rules = (*WEIGHT_RULES, *MERGE_RULES)


@dataclass(frozen=True)
class PlainLinear:
    """Bring linear layers into one form.

    Attributes:
        target: One of `leptonc.passes.rewriting.rule.TARGETS`.
        facts: What is known of the model's values, or None to infer it.
    """

    name: ClassVar[str] = "plain-linear"
    target: str = "generic"
    facts: Facts | None = None

    def requires(self, model: ir.Model) -> str | None:
        """Any model will do."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Rewrite until no rule fires."""
        return apply_rules(model, self.name, CANONICAL_RULES, target=self.target, facts=self.facts)


@dataclass(frozen=True)
class FuseLinear:
    """Merge linear layers with what is around them.

    Attributes:
        target: One of `leptonc.passes.rewriting.rule.TARGETS`.
        facts: What is known of the model's values, or None to infer it.
    """

    name: ClassVar[str] = "fuse-linear"
    target: str = "generic"
    facts: Facts | None = None

    def requires(self, model: ir.Model) -> str | None:
        """Any model will do."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Rewrite weights until no rule fires, then merge nodes, and again if that helped."""
        facts = self.facts or infer_facts(model)
        rounds: list[PassStats] = []
        while True:
            for rules in (WEIGHT_RULES, MERGE_RULES):
                rounds.append(apply_rules(model, self.name, rules, target=self.target, facts=facts))
            if not rounds[-1].changed:
                return _total(rounds, last=2)


def _total(parts: Sequence[PassStats], *, last: int) -> PassStats:
    """Add up several runs; the refusals are those of the `last` of them."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(dict(part.counts))
    return PassStats(
        name=parts[0].name,
        counts=tuple(sorted(counts.items())),
        nodes_before=parts[0].nodes_before,
        nodes_after=parts[-1].nodes_after,
        refused=tuple(refusal for part in parts[-last:] for refusal in part.refused),
        fired=tuple(firing for part in parts for firing in part.fired),
    )
