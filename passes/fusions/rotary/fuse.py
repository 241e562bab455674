"""Fuses rotary position embeddings, and moves them to where they cost least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.facts.facts import Facts
from leptonc.passes.fusions.rotary import embedding as rotary_embedding
from leptonc.passes.fusions.rotary import heads as rotary_heads
from leptonc.passes.fusions.rotary import partial as rotary_partial
from leptonc.passes.rewriting.rewriter import apply_rules

RULES = (*rotary_embedding.RULES, *rotary_partial.RULES, *rotary_heads.RULES)


@dataclass(frozen=True)
class FuseRotary:
    """Recognise rotary position embeddings.

    Attributes:
        target: What the graph is rewritten for.
        facts: What is known of its values; None to infer it.
    """

    name: ClassVar[str] = "fuse-rotary"

    target: str = "generic"
    facts: Facts | None = None

    def requires(self, model: ir.Model) -> str | None:
        """Ask for nothing."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Rewrite `model` in place."""
        return apply_rules(model, self.name, RULES, target=self.target, facts=self.facts)
