"""Where integers flow: which tensors of a graph are quantised, and which of them share a scale.

A layer reads integers and, where it can, writes some. Between layers integers go on through sums,
joins and poolings, when all that these read is made in integers and the range of what they write
is known. An activation that follows at once belongs to the operator before it: what is quantised
is its result, since engines compute both in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.graph.constants import constant

# They move elements or choose among them, so what they write has the scale of what they read.
SHARING = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Concat"}
)
COMPUTING = frozenset({"Add", "AveragePool", "GlobalAveragePool"})
# Operators that an engine joins with the layer, the sum or the pooling before them.
_ACTIVATIONS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True, eq=False)
class IntegerFlow:
    """The quantised tensors of a graph.

    Attributes:
        tensors: All of them, in graph order.
        made: Those of them that an operator writes in integers: whoever reads one of these reads
            it through its integers, so that there is no second form of it.
        readers: The nodes that read integers: layers and what passes integers on.
        groups: For each tensor the tensors that share its scale, itself among them.
    """

    tensors: tuple[ir.Value, ...]
    made: frozenset[ir.Value]
    readers: frozenset[ir.Node]
    groups: dict[ir.Value, tuple[ir.Value, ...]]


def find_flow(
    graph: ir.Graph, layers: Iterable[ir.Node], is_known: Callable[[ir.Value], bool]
) -> IntegerFlow:
    """Return where integers flow when `layers` read them.

    Args:
        graph: The main graph; unchanged.
        layers: The nodes that are computed in integers within ranges known beforehand.
        is_known: Whether a range is known for a tensor.
    """
    chosen = frozenset(layers)
    quantized: dict[ir.Value, None] = {}
    made: set[ir.Value] = set()
    readers: set[ir.Node] = set()
    partners = _Partners()
    for node in graph:
        if node in chosen:
            end = end_of(node)
            value = node.inputs[0]
            assert value is not None
            quantized[value] = None
            readers.add(node)
            if _writes_integers(node, end, is_known):
                quantized[end] = None
                made.add(end)
        elif passes_on(node):
            end = end_of(node)
            inputs = [value for value in node.inputs if value is not None and not constant(value)]
            sharing = node.op_type in SHARING
            if not inputs or any(value not in made for value in inputs):
                continue
            if not sharing and not is_known(end):
                continue
            if end is not node.outputs[0] and sharing and not is_known(end):
                continue
            readers.add(node)
            quantized[end] = None
            made.add(end)
            if sharing and end is node.outputs[0]:
                for value in inputs:
                    partners.join(value, end)
    order = tuple(quantized)
    return IntegerFlow(order, frozenset(made), frozenset(readers), partners.groups(order))


def passes_on(node: ir.Node) -> bool:
    """Whether integers can go through `node`."""
    if node.domain or node.op_type not in SHARING | COMPUTING:
        return False
    # Indices of the largest elements are a second output that has no integer form.
    return sum(bool(output.name and output.uses()) for output in node.outputs) <= 1


def end_of(node: ir.Node) -> ir.Value:
    """Return the tensor at which the integer form of `node` ends: after its activation."""
    end = node.outputs[0]
    if end.is_graph_output():
        return end
    uses = list(end.uses())
    if len(uses) != 1 or uses[0].idx != 0:
        return end
    reader = uses[0].node
    if reader.domain or reader.op_type not in _ACTIVATIONS or reader.graph is not node.graph:
        return end
    return reader.outputs[0]


def _writes_integers(node: ir.Node, end: ir.Value, is_known: Callable[[ir.Value], bool]) -> bool:
    """Whether the result of a layer is quantised.

    A convolution in integers writes integers: engines have no other. A product of matrices writes
    them only where a product or what passes them on reads nothing else; its float result is free.
    """
    if node.op_type in {"Conv", "ConvTranspose"}:
        return True
    if end.is_graph_output() or not is_known(end):
        return False
    readers = [use.node for use in end.uses()]
    return bool(readers) and all(
        not reader.domain and (reader.op_type in {"Conv", "Gemm"} and reader.inputs[0] is end)
        for reader in readers
    )


class _Partners:
    """Sets of tensors that share a scale."""

    def __init__(self) -> None:
        self._parent: dict[ir.Value, ir.Value] = {}

    def join(self, first: ir.Value, second: ir.Value) -> None:
        self._parent[self._root(first)] = self._root(second)

    def _root(self, value: ir.Value) -> ir.Value:
        while (parent := self._parent.get(value, value)) is not value:
            value = parent
        return value

    def groups(self, order: tuple[ir.Value, ...]) -> dict[ir.Value, tuple[ir.Value, ...]]:
        """Return for each tensor those of its set, in graph order."""
        sets: dict[ir.Value, list[ir.Value]] = {}
        for value in order:
            sets.setdefault(self._root(value), []).append(value)
        return {value: tuple(sets[self._root(value)]) for value in order}
