"""Takes the parts of a tensor in as few nodes as there are. Exact.

It runs after the fusions, which look for the Slices.
"""

from __future__ import annotations

from leptonc.passes.movement import slice_parts
from leptonc.passes.rewriting.rule_pass import RulePass

LOWER_SLICES = RulePass("lower-slices", __doc__, slice_parts.RULES)
