"""The exact rules for masks and positions, which belong into the canonical stage."""

from __future__ import annotations

from typing import Any

from leptonc.passes.movement import cast_like as mask_types
from leptonc.passes.movement import flat_grids as mask_flat_grid
from leptonc.passes.movement import neutral_operands as mask_neutral
from leptonc.passes.movement import widened_masks as mask_widening
from leptonc.passes.rewriting.rule import Rule

MASK_RULES: tuple[Rule[Any], ...] = (
    *mask_types.RULES,
    *mask_neutral.RULES,
    *mask_flat_grid.RULES,
    *mask_widening.RULES,
)
