"""Recognises normalisation. Outputs change by rounding only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.facts.facts import Facts
from leptonc.passes.fusions.norm import affine as norm_affine
from leptonc.passes.fusions.norm import core as norm_core
from leptonc.passes.fusions.norm import group as norm_group
from leptonc.passes.fusions.norm import split as norm_split
from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rule

RULES: tuple[Rule[Any], ...] = (
    *norm_affine.RULES,
    *norm_group.RULES,
    *norm_core.RULES,
    *norm_split.RULES,
)


@dataclass(frozen=True)
class FuseNormalization:
    """Fuse what normalises into one node.

    Attributes:
        target: What the model is for.
        facts: What is known of the values of the model that `run` will get, or None to infer it.
    """

    name: ClassVar[str] = "fuse-normalization"
    target: str = "generic"
    facts: Facts | None = None

    def requires(self, model: ir.Model) -> str | None:
        """Any model will do."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Rewrite until no rule fires."""
        return apply_rules(model, self.name, RULES, target=self.target, facts=self.facts)
