"""Simplifies what only moves and relabels elements, and the arithmetic on shapes. Exact."""

from __future__ import annotations

from leptonc.passes.movement import (
    cast_like,
    casts,
    expands,
    flat_grids,
    index_grids,
    neutral_operands,
    reshapes,
    slices,
    transpose_joins,
    transposes,
    uniform_lookups,
    unsqueezes,
    widened_masks,
)
from leptonc.passes.rewriting.rule_pass import RulePass, Rules

MASK_RULES: Rules = (
    *cast_like.RULES,
    *neutral_operands.RULES,
    *flat_grids.RULES,
    *widened_masks.RULES,
)

SHAPES = RulePass(
    "shapes",
    __doc__,
    (
        *index_grids.RULES,
        *expands.RULES,
        *uniform_lookups.RULES,
        *reshapes.RULES,
        *slices.RULES,
        *unsqueezes.RULES,
        *casts.RULES,
        *transposes.RULES,
        *transpose_joins.RULES,
        *MASK_RULES,
    ),
)
