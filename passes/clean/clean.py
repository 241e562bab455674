"""Removes what computes nothing: dead nodes and initializers, no-ops, repeated expressions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.clean.chains import collapse
from leptonc.passes.clean.noops import noop
from leptonc.passes.clean.scalar_ranges import repair_ranges
from leptonc.passes.clean.subexpressions import merge_subexpressions
from leptonc.passes.facts.facts import Facts
from leptonc.passes.graph.editing import alias
from leptonc.passes.graph.names import Names, separate_scopes
from leptonc.passes.graph.structure import (
    annotated_names,
    count_nodes,
    graphs,
    is_dead,
    opset_of,
    roots,
)
from leptonc.passes.graph.sweep import sweep
from leptonc.passes.pipeline import Context
from leptonc.passes.rewriting.site import Site


@dataclass(frozen=True)
class Clean:
    """Remove nodes and initializers that do not matter; every output keeps its bits."""

    name: ClassVar[str] = "clean"

    def run(self, model: ir.Model, context: Context = Context()) -> PassStats:
        """Rewrite until nothing changes any more."""
        before = count_nodes(model)
        counts: Counter[str] = Counter()
        counts["scopes separated"] = separate_scopes(model)
        facts = context.known(model)
        names, pinned = Names(model), annotated_names(model)
        while True:
            round_ = Counter[str]()
            for root in roots(model):
                known = Facts(declared=False) if root.function else facts
                for graph in graphs(root.graph):
                    round_ += _simplify(graph, known, opset_of(model, root))
                    round_["ranges repaired"] += repair_ranges(graph, known, names)
                round_["common subexpressions"] += merge_subexpressions(root)
            round_ += sweep(model, pinned)
            counts += round_
            if not round_.total():
                break
        return PassStats(
            name=self.name,
            counts=tuple(sorted((+counts).items())),
            nodes_before=before,
            nodes_after=count_nodes(model),
        )


def _simplify(graph: ir.Graph, facts: Facts, opset: int) -> Counter[str]:
    """Rewire around no-ops and collapse chains in one graph; the nodes stay, without readers."""
    counts: Counter[str] = Counter()
    for node in graph:
        if node.device_configurations or is_dead(node):
            continue
        site = Site(node, facts, opset)
        same = noop(site)
        if same is not None:
            counts[_NOOP_NAMES.get(node.op_type, "no-op others")] += alias(node.outputs[0], same)
            continue
        collapsed = collapse(site)
        if collapsed is None:
            continue
        if collapsed.value is None or alias(node.outputs[0], collapsed.value):
            counts["chains"] += 1
    return +counts


_NOOP_NAMES = {
    "Identity": "identities",
    "Cast": "no-op casts",
    "CastLike": "no-op casts",
    "Reshape": "no-op reshapes",
    "Flatten": "no-op reshapes",
    "Squeeze": "no-op reshapes",
    "Transpose": "no-op transposes",
    "Dropout": "dropouts",
}
