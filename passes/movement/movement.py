"""Simplifies what only moves and relabels elements, and the arithmetic on shapes. Exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.facts.facts import Facts
from leptonc.passes.fusions.mask_rules import MASK_RULES
from leptonc.passes.movement import (
    casts,
    expands,
    index_grids,
    reshapes,
    slices,
    transpose_joins,
    transposes,
    unsqueezes,
)
from leptonc.passes.movement import uniform_lookups as uniform
from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rule

RULES: tuple[Rule[Any], ...] = (
    *index_grids.RULES,
    *expands.RULES,
    *uniform.RULES,
    *reshapes.RULES,
    *slices.RULES,
    *unsqueezes.RULES,
    *casts.RULES,
    *transposes.RULES,
    *transpose_joins.RULES,
    *MASK_RULES,
)


@dataclass(frozen=True)
class Shapes:
    """Simplify what depends on shapes.

    Attributes:
        target: What the model is for.
        facts: What is known of the values of the model that `run` will get, or None to infer it.
    """

    name: ClassVar[str] = "shapes"
    target: str = "generic"
    facts: Facts | None = None

    def requires(self, model: ir.Model) -> str | None:
        """Any model will do."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Rewrite until no rule fires."""
        return apply_rules(model, self.name, RULES, target=self.target, facts=self.facts)
