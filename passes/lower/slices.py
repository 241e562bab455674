"""Takes the parts of a tensor in as few nodes as there are. Exact.

It runs after the fusions, which look for the Slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.facts.facts import Facts
from leptonc.passes.movement import slice_parts
from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rule

RULES: tuple[Rule[Any], ...] = slice_parts.RULES


@dataclass(frozen=True)
class LowerSlices:
    """Join Slices of one tensor, and Slices with what drops their axis.

    Attributes:
        target: What the model is for.
        facts: What is known of the values of the model that `run` will get, or None to infer it.
    """

    name: ClassVar[str] = "lower-slices"
    target: str = "generic"
    facts: Facts | None = None

    def requires(self, model: ir.Model) -> str | None:
        """Any model will do."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Rewrite until no rule fires."""
        return apply_rules(model, self.name, RULES, target=self.target, facts=self.facts)
