"""The exact rules for masks and positions, which belong into the canonical stage."""

from __future__ import annotations

from typing import Any

from leptonc.passes.fusions import mask_flat_grid, mask_neutral, mask_types, mask_widening
from leptonc.passes.rule import Rule

MASK_RULES: tuple[Rule[Any], ...] = (
    *mask_types.RULES,
    *mask_neutral.RULES,
    *mask_flat_grid.RULES,
    *mask_widening.RULES,
)
