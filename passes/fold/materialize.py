"""Puts computed tensors into a graph in place of the nodes that compute them."""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.graph.constants import constant_node_tensor
from leptonc.passes.graph.names import Names
from leptonc.passes.graph.structure import Root, annotation, graphs


def replace_with_tensor(
    value: ir.Value, tensor: ir.TensorProtocol, root: Root, names: Names
) -> None:
    """Let the readers of `value` read `tensor`.

    Case 1: initializers are allowed and `value` is no output: an initializer takes its name.
    Case 2: `value` is an output: an Identity over an initializer takes its name.
    Case 3: no initializers here (a function, or IR version 3): a Constant node takes its name.

    The node that computed `value` stays, without readers of that output.
    """
    node = value.producer()
    assert node is not None
    assert node.graph is not None
    graph = node.graph
    # Case 3.
    if not root.initializers:
        attribute = ir.AttrTensor("value", tensor)
        _take_over(graph, node, value, ir.Node("", "Constant", [], [attribute]))
    # Case 2.
    elif value.is_graph_output():
        name = names.fresh(f"{value.name}_value")
        stored = _register(graph, name, tensor)
        _take_over(graph, node, value, ir.Node("", "Identity", [stored]))
    # Case 1.
    else:
        name, value.name = value.name or "", None
        stored = _register(graph, name, tensor)
        stored.doc_string = value.doc_string
        _describe(stored, value)
        value.replace_all_uses_with(stored)


def lift_constants(root: Root) -> int:
    """Turn Constant nodes into initializers, which can be shared and stored outside the graph.

    Those that are an output of their graph stay.

    Returns:
        How many were turned.
    """
    if not root.initializers:
        return 0
    lifted = 0
    for graph in graphs(root.graph):
        for node in list(graph):
            tensor = constant_node_tensor(node)
            value = node.outputs[0]
            if tensor is None or value.is_graph_output() or not value.uses():
                continue
            name, value.name = value.name or "", None
            stored = _register(graph, name, tensor)
            stored.doc_string = value.doc_string
            _describe(stored, value)
            value.replace_all_uses_with(stored)
            graph.remove(node)
            lifted += 1
    return lifted


def _register(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def _take_over(graph: ir.Graph, old: ir.Node, value: ir.Value, node: ir.Node) -> None:
    """Insert `node` and give its output the name, declaration and readers of `value`."""
    output = node.outputs[0]
    name, value.name = value.name, None
    node.name = f"{name}_constant"
    output.name, output.doc_string = name, value.doc_string
    output.type, output.shape = value.type, value.shape
    _describe(output, value)
    graph.insert_before(old, node)
    value.replace_all_uses_with(output, replace_graph_outputs=True)


def _describe(new: ir.Value, old: ir.Value) -> None:
    new.metadata_props.update(old.metadata_props)
    if annotation(old):
        new.meta.update(old.meta)
