"""Which tensors a calibration run has to look at.

A range is needed of what an operator reads or writes in integers, and of nothing else: the inputs
of convolutions and matrix products, the outputs of convolutions, and what lies between them on
ways that integers can take (residual sums, joins, poolings). A product that is followed by its
bias, its normalisation or its activation is looked at after that, where its quantised form ends.
The sum of attention scores and their mask never becomes integers, and may hold infinities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from leptonc.passes.facts.facts import Facts
from leptonc.passes.graph.constants import constant
from leptonc.passes.ranges.table import Ranges

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = frozenset({"MatMul", "Gemm"})
# They move elements and change none, so what was observed of their input holds for their output.
_CARRIERS = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
# Integers can go through these.
_PASSING = frozenset(
    {
        *("Add", "Sum", "Concat", "Relu", "Clip", "LeakyRelu", "PRelu", "Pad", "Slice", "Split"),
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Resize"),
    }
)
# What the quantised form of the operator before them takes in.
_ABSORBED = frozenset({"BatchNormalization", "Relu", "Clip", "LeakyRelu"})
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})


@dataclass(frozen=True)
class Observed:
    """A tensor to look at.

    Attributes:
        name: Of the value in the graph.
        channel_axis: The axis along which a weight multiplies it, or None.
        node: The node that computes it in words; None for an input of the graph.
    """

    name: str
    channel_axis: int | None
    node: str | None


def observed_tensors(model: ir.Model, facts: Facts) -> tuple[tuple[Observed, ...], dict[str, str]]:
    """Return the tensors of the main graph to look at, and the names of others that equal them.

    Args:
        model: A graph after the `canonical` stage; unchanged.
        facts: What is known of its values.

    Returns:
        The tensors in topological order; and for each tensor that holds the elements of one of
        them in another arrangement, the name of that one.
    """
    search = _Search(facts)
    for node in reversed(list(model.graph)):
        search.visit(node)
    order = [*model.graph.inputs, *(out for node in model.graph for out in node.outputs)]
    tensors = tuple(
        Observed(str(value.name), search.wanted[value], _words(value))
        for value in order
        if value in search.wanted
    )
    return tensors, _aliases(order, search.wanted)


def _aliases(order: list[ir.Value], wanted: Mapping[ir.Value, int | None]) -> dict[str, str]:
    """Return the other names of what is wanted: before and after it was rearranged."""
    seen: dict[ir.Value, ir.Value] = {}
    for value in order:
        if value in wanted:
            seen.setdefault(root(value), value)
    return {
        str(value.name): str(seen[root(value)].name)
        for value in order
        if value not in wanted and value.name and root(value) in seen
    }


def root(value: ir.Value) -> ir.Value:
    """Return the value whose elements `value` holds, in this or another arrangement."""
    while (node := value.producer()) is not None and not node.domain:
        source = node.inputs[0] if node.inputs else None
        if node.op_type not in _CARRIERS or source is None:
            break
        value = source
    return value


def with_rearranged(ranges: Ranges, model: ir.Model) -> Ranges:
    """Return `ranges` with the inputs of the layers of `model` that fusion rearranged.

    A rewrite may put a Reshape between an observed tensor and the layer that reads it, which has
    then an input of a new name and the same elements.

    Args:
        ranges: Of the canonical graph.
        model: The graph after fusion; unchanged.
    """
    values = [*model.graph.inputs, *(out for node in model.graph for out in node.outputs)]
    known: dict[ir.Value, str] = {}
    for value in values:
        if str(value.name) in ranges:
            known.setdefault(root(value), str(value.name))
    aliases = dict(ranges.aliases)
    for node in model.graph:
        if node.op_type not in CONVOLUTIONS | PRODUCTS or node.domain or node.inputs[0] is None:
            continue
        value = node.inputs[0]
        if str(value.name) not in ranges and root(value) in known:
            found = known[root(value)]
            aliases[str(value.name)] = ranges.aliases.get(found, found)
    return replace(ranges, aliases=aliases)


class _Search:
    """Goes through the nodes from last to first, and collects what is wanted."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.wanted: dict[ir.Value, int | None] = {}

    def visit(self, node: ir.Node) -> None:
        if node.domain:
            return
        if node.op_type in CONVOLUTIONS:
            self._weighted(node, 1)
            self._want(_end(node.outputs[0]))
        elif node.op_type in PRODUCTS:
            transposed = node.op_type == "Gemm" and bool(node.attributes.get_int("transA", 0))
            self._weighted(node, 0 if transposed else -1)
        elif node.op_type in _PASSING and any(self._is_wanted(out) for out in node.outputs):
            for value in node.inputs:
                if value is not None and not _absorbed(value):
                    self._want(root(value))

    def _weighted(self, node: ir.Node, axis: int) -> None:
        first, second = node.inputs[0], node.inputs[1]
        if first is not None and constant(second) is not None:
            self._want(first, axis)
            return
        for value in (first, second):
            if value is not None:
                self._want(root(value))

    def _is_wanted(self, value: ir.Value) -> bool:
        if value in self.wanted:
            return True
        readers = [use.node for use in value.uses()]
        return any(
            self._is_wanted(reader.outputs[0])
            for reader in readers
            if reader.op_type in _CARRIERS and not reader.domain
        )

    def _want(self, value: ir.Value, axis: int | None = None) -> None:
        if constant(value) is not None or self._facts.dtype(value) not in _FLOATS:
            return
        known = self.wanted.get(value)
        self.wanted[value] = axis if known is None else known


def _end(value: ir.Value) -> ir.Value:
    """Return the value at which the quantised form of the operator that computes `value` ends."""
    while (reader := _absorbing(value)) is not None:
        value = reader.outputs[0]
    return value


def _absorbed(value: ir.Value) -> bool:
    """Whether `value` exists inside the quantised form of its producer only."""
    node = value.producer()
    if node is None or node.domain or _absorbing(value) is None:
        return False
    if node.op_type in CONVOLUTIONS | PRODUCTS:
        return True
    # Further down the chain: a bias or an activation after the operator itself.
    before = node.inputs[0] if node.inputs else None
    others = [each for each in node.inputs[1:] if each is not None]
    inner = [before, *others] if node.op_type == "Add" else [before]
    return any(each is not None and _absorbing(each) is node and _absorbed(each) for each in inner)


def _absorbing(value: ir.Value) -> ir.Node | None:
    """Return the only reader of `value`, if it becomes part of the operator before it."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = uses[0].node
    if node.domain:
        return None
    if node.op_type == "Add":
        other = node.inputs[1 - uses[0].idx]
        return node if _is_bias(other) else None
    return node if node.op_type in _ABSORBED and uses[0].idx == 0 else None


def _is_bias(value: ir.Value | None) -> bool:
    tensor = constant(value)
    if tensor is None:
        return False
    return sum(size > 1 for size in tensor.shape.numpy()) <= 1


def _words(value: ir.Value) -> str | None:
    node = value.producer()
    return None if node is None else f"{node.op_type} node {node.name or '(unnamed)'!r}"
