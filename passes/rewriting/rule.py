"""A rewrite rule: pattern, check, rewrite.

A rule looks at one node, its anchor: the last node of what it replaces. `pattern` walks
backwards from there and says whether the graph has the form; `check` says why the rewrite may
not be made although it has; `rewrite` builds the replacement. A match that fails its check is a
near miss, and is reported with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import onnx_ir as ir

from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.site import Site
from leptonc.passes.targets import TARGETS

Match = TypeVar("Match")

Rewritten = Mapping[ir.Value, ir.Value]


@dataclass(frozen=True)
class Rule(Generic[Match]):
    """One rewrite.

    Attributes:
        name: For reports, in lower case with hyphens: "conv-batch-norm".
        anchors: The operators it looks at; "Relu", or "com.microsoft.Gelu" with a domain.
        pattern: Returns what it found around the anchor, or None when the graph has another
            form there. It looks at structure only.
        check: Returns the reason why the rewrite may not be made, or None when it may; no function
            where the pattern alone decides.
        rewrite: Makes new nodes and weights with the `Build` it is given, and returns for each
            value that is replaced the one to read instead. It must not change the graph.
        targets: What the rule is for.
        opset: The version of the standard domain that the new nodes need; a graph at an older
            one is raised to it, where that is proven to change nothing.
    """

    name: str
    anchors: tuple[str, ...]
    pattern: Callable[[Site], Match | None]
    check: Callable[[Site, Match], str | None] | None
    rewrite: Callable[[Site, Match, Build], Rewritten]
    targets: frozenset[str] = frozenset(TARGETS)
    opset: int = 0


def read_match(site: Site, match: ir.Value, _: Build) -> Rewritten:
    """Rewrite: let the value that the pattern found be read instead of the anchor's."""
    return {site.node.outputs[0]: match}
