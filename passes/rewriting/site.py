"""Where a rule may apply: a node, and what is known around it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.facts import Facts
from leptonc.passes.graph.constants import constant, constant_ints
from leptonc.passes.graph.operators import has_plain_attributes

IN_INTEGERS = "it is quantised, and the engine joins its activation itself"
_COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "And", "Or", "Xor", "Equal"})


def operator(node: ir.Node) -> str:
    """Return the operator with its domain: "Relu", "com.microsoft.Gelu"."""
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def commuted(node: ir.Node | None) -> tuple[tuple[ir.Value, ir.Value], ...]:
    """Return the two inputs of a binary node in the orders that compute the same.

    Both for an operator that commutes, the given one for others. None where there is no node, or
    an input is left out: a loop over the orders then needs no other question.
    """
    if node is None or len(node.inputs) != 2:
        return ()
    left, right = node.inputs
    if left is None or right is None:
        return ()
    if node.op_type not in _COMMUTATIVE:
        return ((left, right),)
    return ((left, right), (right, left))


@dataclass(frozen=True)
class Site:
    """A node that a rule looks at.

    Attributes:
        node: The node.
        facts: What is known of its inputs.
        opset: The version of the standard domain that its graph imports.
        target: What the graph is rewritten for.
    """

    node: ir.Node
    facts: Facts
    opset: int
    target: str = "generic"

    def input(self, index: int) -> ir.Value | None:
        """Return an input, or None when it is left out."""
        inputs = self.node.inputs
        return inputs[index] if index < len(inputs) else None

    def ints(self, index: int) -> tuple[int, ...] | None:
        """Return the elements of an input that is a small integer constant."""
        return constant_ints(self.input(index))

    def attribute_ints(self, name: str) -> tuple[int, ...] | None:
        """Return an attribute that is a list of integers, or None when it is left out."""
        found = self.node.attributes.get_ints(name)
        return None if found is None else tuple(found)

    def at(self, node: ir.Node) -> Site:
        """Return the same view from another node."""
        return Site(node, self.facts, self.opset, self.target)

    def producer(self, value: ir.Value | None, *operators: str) -> ir.Node | None:
        """Return the node of the same graph whose first output is `value`.

        None when there is none, when it is none of `operators`, or when its attributes cannot
        be read.
        """
        if value is None:
            return None
        node = value.producer()
        if node is None or node.graph is not self.node.graph or node.outputs[0] is not value:
            return None
        if operators and operator(node) not in operators:
            return None
        return node if has_plain_attributes(node) else None

    def chain(self, value: ir.Value | None, *operators: str) -> tuple[ir.Node, ...] | None:
        """Return the nodes behind `value`, each the producer of the first input of the one before.

        None when they are not of `operators`, the last node first, one each.
        """
        nodes: list[ir.Node] = []
        for name in operators:
            node = self.producer(value, name)
            if node is None:
                return None
            nodes.append(node)
            value = node.inputs[0]
        return tuple(nodes)

    def before(self, value: ir.Value | None, *operators: str) -> ir.Value | None:
        """Return the first input of the node that `producer` finds, or None."""
        node = self.producer(value, *operators)
        return None if node is None else node.inputs[0]

    def tensor(self, value: ir.Value | None) -> ir.TensorProtocol | None:
        """Return the tensor that `value` always holds, or None."""
        return constant(value)

    def scalar(self, value: ir.Value | None) -> float | None:
        """Return the only element of a constant of a numeric type, whatever its rank."""
        tensor = constant(value)
        if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
            return None
        return float(tensor.numpy().reshape(-1)[0])

    def is_quantized(self, node: ir.Node) -> bool:
        """Whether `node` is a layer whose weight is stored in integers."""
        return self.producer(self.at(node).input(1), "DequantizeLinear") is not None

    def read_elsewhere(self, value: ir.Value, inside: Collection[ir.Node]) -> str | None:
        """Return who else reads `value` than the nodes `inside`, as a reason, or None."""
        if value.is_graph_output():
            return f"{value.name!r} is an output of the graph"
        for use in value.uses():
            if use.node not in inside:
                return f"{value.name!r} is also read by {use.node.name!r} ({operator(use.node)})"
        return None
