"""Decides what to compute ahead of time: which nodes, which of their results to keep.

A region is a set of nodes that read only constants and each other. Its frontier is what the
rest of the graph reads of it: that is stored, everything else in the region goes. The model
grows by the frontier and shrinks by the weights that only the region read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.facts import Facts
from leptonc.passes.fold.obstacles import obstacle, result_bytes
from leptonc.passes.graph.constants import constant
from leptonc.passes.graph.structure import Root, graphs

# Results above this size in bytes are computed one at a time, and again when they are read.
_LARGE = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What to fold.

    Attributes:
        nodes: The region, in graph order.
        frontier: The values to store, in graph order, with their sizes in bytes at most.
        growth: By how many bytes the model grows at most; negative when it shrinks.
        refused: Nodes with constant inputs that stay, with the reason, in graph order.
    """

    nodes: dict[ir.Node, None]
    frontier: dict[ir.Value, int]
    growth: int
    refused: dict[ir.Node, str]


def make_plan(
    root: Root, facts: Facts, budget: int, pinned: frozenset[str], refused: dict[ir.Node, str]
) -> Plan:
    """Plan the largest region found whose growth stays within `budget`.

    Where the budget is exceeded, the node that brings most growth is left out, and so on.

    Args:
        root: The graph, with its subgraphs.
        facts: The shapes and types.
        budget: Bytes that the model may grow by.
        pinned: Names of initializers that stay whether read or not.
        refused: Nodes that are known not to fold, with the reason.
    """
    refused = dict(refused)
    while True:
        nodes = _region(root, facts, refused)
        frontier = _frontier(nodes, facts)
        dying = _dying(nodes, pinned)
        growth = sum(frontier.values()) - sum(tensor.nbytes for tensor in dying.values())
        if growth <= budget or not frontier:
            return Plan(nodes, frontier, growth if frontier else 0, refused)
        worst = _worst(nodes, frontier, dying)
        refused[worst] = "its result would make the model grow past the budget"


def _region(root: Root, facts: Facts, refused: dict[ir.Node, str]) -> dict[ir.Node, None]:
    nodes: dict[ir.Node, None] = {}
    for graph in graphs(root.graph):
        for node in graph:
            if node in refused or not _is_candidate(node, nodes):
                continue
            reason = obstacle(node, facts) or _unbounded(node, facts)
            if reason is None:
                nodes[node] = None
            else:
                refused[node] = reason
    return nodes


def _is_candidate(node: ir.Node, region: dict[ir.Node, None]) -> bool:
    """Whether `node` is of the standard domain and reads constants only, and at least one.

    An Identity is none: where it is left, it separates a weight from an output.
    """
    if node.domain or node.op_type in {"Constant", "Identity"} or node.device_configurations:
        return False
    reads = [value for value in node.inputs if value is not None]
    return bool(reads) and all(
        constant(value) is not None or value.producer() in region for value in reads
    )


def _unbounded(node: ir.Node, facts: Facts) -> str | None:
    for output in node.outputs:
        if output.name and result_bytes(output, facts) is None:
            return f"the size of {output.name!r} is not known before it is computed"
    return None


def _frontier(nodes: dict[ir.Node, None], facts: Facts) -> dict[ir.Value, int]:
    return {
        output: result_bytes(output, facts) or 0
        for node in nodes
        for output in node.outputs
        if output.name and _is_needed(output, nodes)
    }


def _is_needed(value: ir.Value, nodes: dict[ir.Node, None]) -> bool:
    return value.is_graph_output() or any(use.node not in nodes for use in value.uses())


def _dying(nodes: dict[ir.Node, None], pinned: frozenset[str]) -> dict[ir.Value, ir.TensorProtocol]:
    """Return the constants that nothing outside the region reads."""
    found: dict[ir.Value, ir.TensorProtocol] = {}
    for node in nodes:
        for value in node.inputs:
            tensor = constant(value)
            if value is None or tensor is None or value in found or value.name in pinned:
                continue
            if not _is_needed(value, nodes):
                found[value] = tensor
    return found


def _worst(
    nodes: dict[ir.Node, None],
    frontier: dict[ir.Value, int],
    dying: dict[ir.Value, ir.TensorProtocol],
) -> ir.Node:
    """Return the frontier node that adds most beyond the weights that it makes needless."""
    credit: dict[ir.Node, int] = {}
    for node in nodes:
        credit[node] = 0
        for value in node.inputs:
            if value is None:
                continue
            if value in dying:
                credit[node] += dying[value].nbytes
            else:
                producer = value.producer()
                credit[node] += credit.get(producer, 0) if producer is not None else 0
    scores: dict[ir.Node, int] = {}
    for value, size in frontier.items():
        producer = value.producer()
        assert producer is not None
        scores[producer] = scores.get(producer, -credit[producer]) + size
    return max(scores, key=lambda node: scores[node])


def cone(values: Sequence[ir.Value], nodes: dict[ir.Node, None]) -> list[ir.Node]:
    """Return the nodes of a region that `values` are computed by, in graph order."""
    needed: set[ir.Node] = set()
    pending = [value.producer() for value in values]
    while pending:
        node = pending.pop()
        if node is None or node not in nodes or node in needed:
            continue
        needed.add(node)
        pending.extend(value.producer() for value in node.inputs if value is not None)
    return [node for node in nodes if node in needed]


def heavy_nodes(nodes: dict[ir.Node, None], facts: Facts) -> frozenset[ir.Node]:
    """Return the nodes of a region that read or make something large, or come after such."""
    heavy: set[ir.Node] = set()
    for node in nodes:
        for value in node.inputs:
            tensor = constant(value)
            if tensor is not None:
                large = tensor.nbytes > _LARGE
            else:
                large = value is not None and value.producer() in heavy
            if large:
                heavy.add(node)
        if any((result_bytes(value, facts) or 0) > _LARGE for value in node.outputs):
            heavy.add(node)
    return frozenset(heavy)
