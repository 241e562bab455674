"""What a pass returns: what changed, how much, and what was refused and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """A rewrite that matched and was not made, with the check that failed."""

    node: str
    reason: str
    rule: str = ""


@dataclass(frozen=True)
class Firing:
    """A rewrite that was made: which rule, and at which node."""

    rule: str
    node: str


@dataclass(frozen=True)
class PassStats:
    """What one run of one pass did.

    Attributes:
        name: The pass.
        counts: What changed and how often, sorted by name, e.g. `(("identities", 12),)`.
        nodes_before: Nodes in the graph, its subgraphs and functions, before.
        nodes_after: The same, after.
        refused: Near misses with their reasons, in graph order.
        fired: The rewrites that rules made, in the order they were made.
        removed: The nodes that are gone, in their order; `run_passes` fills it in.
        rewritten: The nodes that are new or have other inputs or attributes; so too.
    """

    name: str
    counts: tuple[tuple[str, int], ...]
    nodes_before: int
    nodes_after: int
    refused: tuple[Refusal, ...] = ()
    fired: tuple[Firing, ...] = ()
    removed: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()

    @property
    def changed(self) -> int:
        """How many rewrites were made."""
        return sum(count for _, count in self.counts)
