"""What a rule is, and who applies it: the public face for those who write passes; the rules stand with their families."""

from __future__ import annotations

from leptonc.passes.base import Firing, PassStats, Refusal
from leptonc.passes.facts.facts import Facts
from leptonc.passes.pipeline import Context
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.rule_pass import RulePass
from leptonc.passes.rewriting.site import Site

__all__ = [
    "Build",
    "Context",
    "Facts",
    "Firing",
    "PassStats",
    "Refusal",
    "Rewritten",
    "Rule",
    "RulePass",
    "Site",
    "apply_rules",
]
