"""Fuses rotary position embeddings, and moves them to where they cost least."""

from __future__ import annotations

from leptonc.passes.fusions.rotary import embedding, heads, partial
from leptonc.passes.rewriting.rule_pass import RulePass

FUSE_ROTARY = RulePass("fuse-rotary", __doc__, (*embedding.RULES, *partial.RULES, *heads.RULES))
