"""Decides, before anything is changed, which nodes compute in half the width.

A node computes in float32 when its operator should (`half_operators`), when a weight of it does
not fit, or when it stands between two that do:

chain: what comes out of an operator that leaves the range, and what is computed from nothing but
    such values. `Exp`, `ReduceSum` and the `Div` that joins them are one chain.
counted: what is computed from whole numbers and constants alone: positions, and masks made of
    them. Half the width does not tell large whole numbers apart.
joint: an operation on each element of which only some inputs are such values. It computes in
    float32, and its result goes on in half the width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from leptonc.passes.bounds.bounds import bounds
from leptonc.passes.facts.facts import Facts
from leptonc.passes.graph.constants import constant
from leptonc.passes.graph.structure import graphs
from leptonc.passes.precision.half_types import HalfType, Survey, survey
from leptonc.passes.precision.operators import (
    CHAIN_STARTS,
    ELEMENTWISE,
    MOVES,
    half_input,
    refusal,
)
from leptonc.passes.rewriting.site import Site, operator

_FLOAT = ir.DataType.FLOAT
_INTEGERS = frozenset(
    {
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    }
)

# What a number that stands for "no key here" may go through on its way to a Softmax.
_MASK_MOVES = frozenset(
    {
        *("Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Concat"),
        *("Slice", "Gather", "Where", "Add", "Mul", "Min", "Trilu", "ScatterND"),
    }
)
# Where it may arrive: the operator, and the input.
_MASK_ENDS = frozenset(
    {
        *(("Softmax", 0), ("Attention", 3)),
        *(("com.microsoft.MultiHeadAttention", 5), ("com.microsoft.GroupQueryAttention", 10)),
    }
)


@dataclass
class Plan:
    """What becomes of each node that has to do with FLOAT values.

    Attributes:
        half: Nodes that compute in half the width.
        wide: Nodes that stay in float32, with the reason.
        clamped: Constants whose numbers below the range stand for "no key here".
    """

    half: set[ir.Node] = field(default_factory=set)
    wide: dict[ir.Node, str] = field(default_factory=dict)
    clamped: set[ir.Value] = field(default_factory=set)


def make_plan(
    model: ir.Model, half: HalfType, facts: Facts, *, target: str, keep: frozenset[str], opset: int
) -> Plan:
    """Decide for every node of the main graph and its subgraphs.

    Args:
        model: Left as it is.
        half: The type to compute in.
        facts: What is known of its values.
        target: One of `leptonc.passes.TARGETS`.
        keep: Names of nodes that shall stay in float32.
        opset: Of the standard domain, as far as the graph can be raised.
    """
    planner = _Planner(half, facts, target, keep, opset)
    order = [node for graph in graphs(model.graph) for node in graph]
    planner.find_periodic(order)
    for node in _topological(model.graph):
        planner.decide(node)
    return planner.plan


def _topological(graph: ir.Graph) -> Iterable[ir.Node]:
    """Yield each node before those of its own bodies: they read what is computed before it."""
    for each in graphs(graph):
        yield from each


class _Planner:
    def __init__(
        self, half: HalfType, facts: Facts, target: str, keep: frozenset[str], opset: int
    ) -> None:
        self.plan = Plan()
        self._half = half
        self._facts = facts
        self._target = target
        self._keep = keep
        self._opset = opset
        self._chain: set[ir.Value] = set()
        self._counted: set[ir.Value] = set()
        self._periodic: set[ir.Node] = set()
        self._surveys: dict[ir.Value, Survey] = {}

    def find_periodic(self, nodes: Iterable[ir.Node]) -> None:
        """Mark what computes the angles of Sin and Cos."""
        pending = [n for n in nodes if operator(n) in ("Sin", "Cos")]
        while pending:
            node = pending.pop()
            for value in node.inputs:
                before = None if value is None else value.producer()
                if before is None or before in self._periodic:
                    continue
                if operator(before) in ELEMENTWISE | MOVES:
                    self._periodic.add(before)
                    pending.append(before)

    def decide(self, node: ir.Node) -> None:
        floats = [value for value in node.inputs if self._facts.dtype(value) == _FLOAT]
        outputs = [value for value in node.outputs if self._facts.dtype(value) == _FLOAT]
        if node.op_type == "Cast" and not node.domain:
            self._decide_cast(node, outputs)
            return
        if not floats and not outputs:
            return
        computed = [value for value in floats if value is not None and constant(value) is None]
        reason = self._own_reason(node, floats)
        counted = bool(computed) and all(value in self._counted for value in computed)
        chained = [value for value in computed if value in self._chain]
        if reason is not None:
            self._keep_wide(node, reason, outputs, chain=operator(node) in CHAIN_STARTS)
        elif counted:
            self._keep_wide(node, "it computes on whole numbers", outputs, chain=True)
        elif chained and operator(node) in ELEMENTWISE:
            whole = len(chained) == len(computed)
            if not whole and self._are_masks(node, chained):
                self.plan.half.add(node)
            else:
                self._keep_wide(node, _beside(chained), outputs, chain=whole)
        elif chained and operator(node) in MOVES and len(chained) == len(computed):
            self._keep_wide(node, _beside(chained), outputs, chain=True)
        else:
            self.plan.half.add(node)
        if counted:
            self._counted.update(outputs)

    def _decide_cast(self, node: ir.Node, outputs: list[ir.Value]) -> None:
        """A Cast takes what it gets; one from whole numbers to FLOAT begins to count."""
        if outputs and self._facts.dtype(node.inputs[0]) in _INTEGERS:
            self._chain.update(outputs)
            self._counted.update(outputs)

    def _own_reason(self, node: ir.Node, floats: list[ir.Value | None]) -> str | None:
        if (node.name or "") in self._keep:
            return "it was asked to stay"
        reason = refusal(node, self._half, self._opset, self._target)
        if reason is not None:
            return reason
        if node in self._periodic:
            return "it computes an angle"
        for index, value in enumerate(node.inputs):
            if value in floats and value is not None and half_input(node, index):
                problem = self._weight_problem(node, index, value)
                if problem is not None:
                    return problem
        return None

    def _weight_problem(self, node: ir.Node, index: int, value: ir.Value) -> str | None:
        tensor = constant(value)
        if tensor is None:
            return None
        if value not in self._surveys:
            self._surveys[value] = survey(tensor, self._half)
        found = self._surveys[value]
        problem = found.problem(self._half)
        if problem is None:
            return None
        if found.beyond and not found.positive_beyond and _only_masks(node, index, set()):
            self.plan.clamped.add(value)
            return None
        return f"its weight {value.name!r}: {problem}"

    def _are_masks(self, node: ir.Node, chained: list[ir.Value]) -> bool:
        """Whether these are made of whole numbers, and lie where half the width can hold them."""
        site = Site(node, self._facts, self._opset, self._target)
        for value in chained:
            if value not in self._counted:
                return False
            found = bounds(site, value)
            if found is None or max(-found.low, found.high) > self._half.largest:
                return False
        return True

    def _keep_wide(
        self, node: ir.Node, reason: str, outputs: list[ir.Value], *, chain: bool
    ) -> None:
        self.plan.wide[node] = reason
        if chain:
            self._chain.update(outputs)


def _beside(chained: list[ir.Value]) -> str:
    return f"it reads {chained[0].name!r}, which may leave the range"


def _only_masks(node: ir.Node, index: int, seen: set[ir.Node]) -> bool:
    """Whether what goes into `node` at `index` ends in a Softmax, whatever way it takes."""
    name = operator(node)
    if (name, index) in _MASK_ENDS:
        return True
    if name not in _MASK_MOVES:
        return False
    if node in seen:
        return True
    seen.add(node)
    output = node.outputs[0]
    uses = list(output.uses())
    if output.is_graph_output() or not uses:
        return False
    return all(_only_masks(use.node, use.idx, seen) for use in uses)
