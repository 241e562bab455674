"""Replaces an If whose condition is constant by the branch that is always taken."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from leptonc.passes.graph.constants import constant_bool
from leptonc.passes.graph.editing import alias, detach
from leptonc.passes.graph.names import Names
from leptonc.passes.graph.operators import has_plain_attributes
from leptonc.passes.graph.structure import Root, graphs, roots, values_of


def inline_constant_ifs(model: ir.Model, names: Names) -> int:
    """Inline every branch that is known to be taken; return how many."""
    inlined = 0
    for root in roots(model):
        for graph in graphs(root.graph):
            for node in list(graph):
                branch = _taken(node, root)
                if branch is not None:
                    _inline(model, node, branch, names)
                    inlined += 1
    return inlined


def _taken(node: ir.Node, root: Root) -> ir.Graph | None:
    if node.op_type != "If" or node.domain or node.graph is None:
        return None
    if len(node.inputs) != 1 or not has_plain_attributes(node):
        return None
    condition = constant_bool(node.inputs[0])
    if condition is None:
        return None
    branch = node.attributes.get_graph("then_branch" if condition else "else_branch")
    if branch is None or branch.inputs or len(branch.outputs) != len(node.outputs):
        return None
    return None if branch.initializers and not root.initializers else branch


def _inline(model: ir.Model, node: ir.Node, branch: ir.Graph, names: Names) -> None:
    """Move the nodes and initializers of `branch` before `node`, and remove `node`."""
    parent = node.graph
    assert parent is not None
    _make_unique(model, branch, names)
    results = list(branch.outputs)
    branch.outputs.clear()
    for name, value in list(branch.initializers.items()):
        del branch.initializers[name]
        parent.register_initializer(value)
    for inside in list(branch):
        branch.remove(inside)
        parent.insert_before(node, inside)
    for old, new in zip(node.outputs, results, strict=True):
        if old.name and not alias(old, new):
            _copy(parent, node, old, new)
    detach(node)


def _make_unique(model: ir.Model, branch: ir.Graph, names: Names) -> None:
    """Rename what the branch defines under a name that anything else in the model has."""
    used = Counter(
        value.name
        for root in roots(model)
        for graph in graphs(root.graph)
        for value in values_of(graph)
    )
    for value in list(values_of(branch)):
        if used[value.name] > 1:
            value.name = names.fresh(f"{value.name}_inlined")


def _copy(parent: ir.Graph, before: ir.Node, old: ir.Value, new: ir.Value) -> None:
    """Keep an output of the graph that cannot be the branch's own value: copy it."""
    node = ir.Node("", "Identity", [new], name=f"{old.name}_copy")
    output = node.outputs[0]
    name, old.name = old.name, None
    output.name, output.type, output.shape = name, old.type, old.shape
    parent.insert_before(before, node)
    old.replace_all_uses_with(output, replace_graph_outputs=True)
