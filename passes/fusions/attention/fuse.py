"""Attention from its primitive form to one node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.facts.facts import Facts, infer_facts
from leptonc.passes.fusions.attention import guard as attention_guard
from leptonc.passes.fusions.attention import ort as attention_ort
from leptonc.passes.fusions.attention import packed as attention_packed
from leptonc.passes.fusions.attention import standard as attention_standard
from leptonc.passes.fusions.attention import turn as attention_turn
from leptonc.passes.graph.structure import all_nodes
from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rule

# Each brings a spelling of an exporter into the common one.
FORM_RULES: tuple[Rule[Any], ...] = (
    attention_packed.RULE,
    attention_turn.RULE,
    attention_guard.RULE,
)

# At each product the first rule that may be applied is.
RULES: tuple[Rule[Any], ...] = (*attention_ort.RULES, *attention_standard.RULES)


@dataclass(frozen=True)
class FuseAttention:
    """Turn the primitive form of attention into the operator that the target has for it.

    Attributes:
        target: One of `leptonc.passes.rewriting.rule.TARGETS`.
        facts: What is known of the model's values, or None to infer it.
    """

    name: ClassVar[str] = "fuse-attention"
    target: str = "generic"
    facts: Facts | None = None

    def requires(self, model: ir.Model) -> str | None:
        """Any model will do."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Apply the rules."""
        facts = self.facts or infer_facts(model)
        first = apply_rules(model, self.name, FORM_RULES, target=self.target, facts=facts)
        if first.changed:
            facts = infer_facts(model)
        second = apply_rules(model, self.name, RULES, target=self.target, facts=facts)
        there = {node.name for node in all_nodes(model)}
        return PassStats(
            self.name,
            tuple(sorted((*first.counts, *second.counts))),
            first.nodes_before,
            second.nodes_after,
            refused=tuple(one for one in (*first.refused, *second.refused) if one.node in there),
            fired=(*first.fired, *second.fired),
        )
