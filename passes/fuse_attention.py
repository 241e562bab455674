"""Attention from its primitive form to one node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.facts import Facts
from leptonc.passes.fusions import (
    attention_guard,
    attention_ort,
    attention_standard,
    attention_turn,
)
from leptonc.passes.rewriter import apply_rules
from leptonc.passes.rule import Rule

# At each product the first rule that may be applied is.
RULES: tuple[Rule[Any], ...] = (
    attention_turn.RULE,
    attention_guard.RULE,
    *attention_ort.RULES,
    *attention_standard.RULES,
)


@dataclass(frozen=True)
class FuseAttention:
    """Turn the primitive form of attention into the operator that the target has for it.

    Attributes:
        target: One of `leptonc.passes.rule.TARGETS`.
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
        return apply_rules(model, self.name, RULES, target=self.target, facts=self.facts)
