"""Removes nodes that nothing reads, and initializers that no node reads."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from leptonc.passes.graph.editing import detach
from leptonc.passes.graph.operators import is_removable
from leptonc.passes.graph.structure import graphs, is_dead, roots, subgraphs


def sweep(model: ir.Model, pinned: frozenset[str]) -> Counter[str]:
    """Remove dead nodes, readers before what they read, then initializers without readers.

    Args:
        model: Rewritten in place.
        pinned: Names that something other than a node refers to.

    Returns:
        How many of each went.
    """
    counts: Counter[str] = Counter()
    functions = frozenset((domain, name) for domain, name, _ in model.functions)
    for root in roots(model):
        counts["dead nodes"] += _sweep_nodes(root.graph, functions, pinned)
        for graph in graphs(root.graph):
            for name, value in list(graph.initializers.items()):
                if _is_unused(value) and name not in pinned:
                    del graph.initializers[name]
                    counts["dead initializers"] += 1
    return +counts


def _sweep_nodes(
    graph: ir.Graph, functions: frozenset[tuple[str, str]], pinned: frozenset[str]
) -> int:
    removed = 0
    for node in reversed(list(graph)):
        if is_dead(node) and is_removable(node, functions):
            if not any(output.name in pinned for output in node.outputs):
                detach(node)
                removed += 1
            continue
        for body in subgraphs(node):
            removed += _sweep_nodes(body, functions, pinned)
    return removed


def _is_unused(value: ir.Value) -> bool:
    return not value.uses() and not value.is_graph_output() and not value.is_graph_input()
