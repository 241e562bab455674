"""Recognises activation functions. Outputs change by rounding only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.facts.facts import Facts
from leptonc.passes.fusions.activation import gelu as activation_gelu
from leptonc.passes.fusions.activation import hard_swish as activation_hard_swish
from leptonc.passes.fusions.activation import mish as activation_mish
from leptonc.passes.fusions.activation import sigmoid as activation_sigmoid
from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rule

RULES: tuple[Rule[Any], ...] = (
    *activation_gelu.RULES,
    *activation_sigmoid.RULES,
    *activation_hard_swish.RULES,
    *activation_mish.RULES,
)


@dataclass(frozen=True)
class FuseActivation:
    """Fuse what computes an activation function into one node.

    Attributes:
        target: What the model is for.
        facts: What is known of the values of the model that `run` will get, or None to infer it.
    """

    name: ClassVar[str] = "fuse-activation"
    target: str = "generic"
    facts: Facts | None = None

    def requires(self, model: ir.Model) -> str | None:
        """Any model will do."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Rewrite until no rule fires."""
        return apply_rules(model, self.name, RULES, target=self.target, facts=self.facts)
