"""A pass that is a list of rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.pipeline import Context
from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rule

Rules = tuple[Rule[Any], ...]


@dataclass(frozen=True)
class RulePass:
    """Rewrites by rules, until none fires.

    Attributes:
        name: Of the pass.
        doc: What it does, for the reference of all passes.
        rules: Tried at each node in their order.
        then: Rules that only see a graph in which none of `rules` fires any more. When one of
            them fires, it all begins again.
    """

    name: str
    doc: str | None
    rules: Rules
    then: Rules = ()

    def run(self, model: ir.Model, context: Context = Context()) -> PassStats:
        """Rewrite `model` in place, until no rule fires."""
        target = context.target
        if not self.then:
            return apply_rules(model, self.name, self.rules, target=target, facts=context.facts)
        facts = context.known(model)
        rounds: list[PassStats] = []
        while True:
            for rules in (self.rules, self.then):
                if rounds and rounds[-1].changed and not facts.cover(model):
                    facts = infer_facts(model)
                rounds.append(apply_rules(model, self.name, rules, target=target, facts=facts))
            if not rounds[-1].changed:
                return _total(rounds)


def _total(parts: Sequence[PassStats]) -> PassStats:
    """Add up several runs; the refusals are those of the last two: the last changed nothing."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(dict(part.counts))
    return PassStats(
        name=parts[0].name,
        counts=tuple(sorted(counts.items())),
        nodes_before=parts[0].nodes_before,
        nodes_after=parts[-1].nodes_after,
        refused=tuple(refusal for part in parts[-2:] for refusal in part.refused),
        fired=tuple(firing for part in parts for firing in part.fired),
    )
