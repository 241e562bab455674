"""Rewiring who reads what, and removing nodes."""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.graph.structure import annotation, graphs, subgraphs


def detach(node: ir.Node) -> None:
    """Remove a dead node, and with it all that its subgraphs read."""
    graph = node.graph
    assert graph is not None
    for inner in subgraphs(node):
        for body in graphs(inner):
            for inside in body:
                _release_inputs(inside)
    _release_inputs(node)
    graph.remove(node)


def _release_inputs(node: ir.Node) -> None:
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)


def alias(old: ir.Value, new: ir.Value) -> bool:
    """Make every reader of `old` read `new`, and return whether that was possible.

    Case 1: `old` is no output of its graph: its readers are rewired.
    Case 2: `old` is an output: `new` takes over its name and its declaration. That needs `new`
        to be computed in the same graph and to be no output itself; otherwise an input would
        be connected to an output, or two outputs to one value, and the node stays.

    The node that computes `old` is left without readers; the caller removes it.
    """
    if old is new or annotation(old):
        return False
    # Case 1.
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return True
    # Case 2.
    producer = new.producer()
    if producer is None or producer.graph is not old.graph:
        return False
    if new.is_graph_output() or annotation(new) or not _same_kind(old, new):
        return False
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    name, old.name = old.name, None
    new.name = name
    new.type, new.shape, new.doc_string = old.type, old.shape, old.doc_string
    new.metadata_props.update(old.metadata_props)
    return True


def _same_kind(old: ir.Value, new: ir.Value) -> bool:
    return old.type is None or new.type is None or old.type == new.type


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let the readers of `old`, the graph among them, read `new`; its node goes.

    `new` gets the name and the declaration of `old`.
    """
    node = old.producer()
    assert node is not None
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    name, old.name = old.name, None
    new.name, new.type, new.shape = name, old.type, old.shape
    new.metadata_props.update(old.metadata_props)
    detach(node)
