"""Joins sums with what normalises or activates them. Outputs change by rounding only.

It runs last: a sum that something else can take in is better there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.facts.facts import Facts
from leptonc.passes.fusions.residual import bias as activation_bias
from leptonc.passes.fusions.residual import skip_norm as norm_skip
from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rule

RULES: tuple[Rule[Any], ...] = (*norm_skip.RULES, *activation_bias.RULES)


@dataclass(frozen=True)
class FuseResidual:
    """Fuse residual sums and biases into the node that reads them.

    Attributes:
        target: What the model is for.
        facts: What is known of the values of the model that `run` will get, or None to infer it.
    """

    name: ClassVar[str] = "fuse-residual"
    target: str = "generic"
    facts: Facts | None = None

    def requires(self, model: ir.Model) -> str | None:
        """Any model will do."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Rewrite until no rule fires."""
        return apply_rules(model, self.name, RULES, target=self.target, facts=self.facts)
