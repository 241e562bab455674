"""What identifies a graph: its interface, its nodes and its weights, by content.

Two graphs have the same fingerprint when they compute the same thing the same way under the same
names. Where the weights lie, notes on nodes, and the order of nodes that do not depend on one
another play no part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.graph.content import digest
from leptonc.passes.graph.structure import subgraphs

# Attributes that are longer than this in words are given by their digest.
_LONGEST = 60

_Entries = Mapping[str, str]


@dataclass(frozen=True)
class GraphFingerprint:
    """A graph in words that can be compared.

    Attributes:
        interface: Inputs, outputs, operator sets and functions, by what they are.
        nodes: Operator, inputs and attributes of each node, by the name of its first output.
        weights: Type, shape and SHA-256 of each constant, by name.
    """

    interface: _Entries
    nodes: _Entries
    weights: _Entries


def fingerprint(model: ir.Model) -> GraphFingerprint:
    """Return the fingerprint of `model`; every weight is read once, none is kept.

    Raises:
        ModelError: The file of a weight cannot be read.
    """
    graph = model.graph
    interface = {
        "inputs": ", ".join(_declared(value) for value in graph.inputs),
        "outputs": ", ".join(_declared(value) for value in graph.outputs),
    }
    for domain, version in sorted(model.opset_imports.items()):
        interface[f"operators of {domain or 'ai.onnx'}"] = f"version {version}"
    for function in model.functions.values():
        name = f"function {function.domain}.{function.name}:{function.overload}"
        interface[name] = _hashed("; ".join(sorted(_body(function.graph))))
    return GraphFingerprint(
        interface,
        {_name_of(node): _node(node) for node in graph},
        {str(name): _weight(value) for name, value in graph.initializers.items()},
    )


def difference(first: GraphFingerprint, second: GraphFingerprint) -> str | None:
    """Say where two graphs differ first, or return None when they are the same.

    Args:
        first: Called "there" in the answer.
        second: Called "here".
    """
    for kind, there, here in (
        ("", first.interface, second.interface),
        ("the node that computes ", first.nodes, second.nodes),
        ("the weight ", first.weights, second.weights),
    ):
        if there == here:
            continue
        # In the order of the graph at hand, so that the cause comes before what follows from it.
        for name in (*here, *(name for name in there if name not in here)):
            if there.get(name) != here.get(name):
                shown = f"{kind}{name!r}" if kind else name
                return (
                    f"{shown}: {there.get(name, 'absent')} there, {here.get(name, 'absent')} here"
                )
    return None


def _name_of(node: ir.Node) -> str:
    names = [output.name for output in node.outputs if output.name]
    return names[0] if names else f"node {node.name}"


def _declared(value: ir.Value) -> str:
    shape = "unknown" if value.shape is None else f"[{', '.join(map(str, value.shape))}]"
    return f"{value.name} {value.type} {shape}"


def _weight(value: ir.Value) -> str:
    tensor = value.const_value
    if tensor is None:
        return "without data"
    return _tensor(tensor)


def _tensor(tensor: ir.TensorProtocol) -> str:
    sizes = ", ".join(str(size) for size in tensor.shape.numpy())
    return f"{tensor.dtype.name} [{sizes}] sha256 {digest(tensor).hex()}"


def _node(node: ir.Node) -> str:
    domain = f"{node.domain}." if node.domain else ""
    inputs = ", ".join("-" if value is None else str(value.name) for value in node.inputs)
    outputs = ", ".join(str(value.name) for value in node.outputs)
    attributes = [
        f"{name}={_attribute(attribute)}"
        for name, attribute in sorted(node.attributes.data.items())
    ]
    words = f" with {', '.join(attributes)}" if attributes else ""
    bodies = [_hashed("; ".join(sorted(_body(graph)))) for graph in subgraphs(node)]
    inner = f" and bodies {', '.join(bodies)}" if bodies else ""
    return f"{domain}{node.op_type}({inputs}) to {outputs}{words}{inner}"


def _attribute(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return f"@{attribute.ref_attr_name}"
    if attribute.type is ir.AttributeType.TENSOR:
        return _tensor(attribute.as_tensor())
    if attribute.type is ir.AttributeType.TENSORS:
        return _hashed("; ".join(_tensor(tensor) for tensor in attribute.as_tensors()))
    if attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
        return "a graph"
    text = str(attribute.value)
    return text if len(text) <= _LONGEST else _hashed(text)


def _body(graph: ir.Graph) -> list[str]:
    """Return what tells the body of a node or of a function from another one."""
    interface = [f"in {[value.name for value in graph.inputs]}"]
    interface.append(f"out {[value.name for value in graph.outputs]}")
    weights = [f"{name} {_weight(value)}" for name, value in graph.initializers.items()]
    return [*interface, *weights, *(_node(node) for node in graph)]


def _hashed(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"
