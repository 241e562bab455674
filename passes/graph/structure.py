"""Walking and editing a graph with its subgraphs and functions.

ONNX gives names to values and scopes to names: a subgraph (the body of If, Loop, Scan) sees the
values of the graphs around it. The IR links objects, so a rewrite works on objects, and the
names only have to be right when the graph is written down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

# onnx-ir keeps a QuantizationAnnotation here: {"SCALE_TENSOR": name of a value, ...}.
_ANNOTATION = "quant_parameter_tensor_names"

# The operators of the standard domain that have graphs as attributes.
_WITH_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})

# The first IR version in which an initializer need not be an input of the graph as well.
_FREE_INITIALIZERS = 4


@dataclass(frozen=True)
class Root:
    """A graph that no other graph contains: the model's own, or the body of a function.

    Attributes:
        graph: The graph.
        function: True for the body of a function, which can hold no initializers and whose
            attributes may refer to those of the call.
        initializers: True where constants may be initializers that are not inputs.
    """

    graph: ir.Graph
    function: bool
    initializers: bool


def roots(model: ir.Model) -> list[Root]:
    """Return the model's graph, then its functions in their order."""
    free = model.ir_version >= _FREE_INITIALIZERS
    found = [Root(model.graph, function=False, initializers=free)]
    found.extend(
        Root(function.graph, function=True, initializers=False)
        for function in model.functions.values()
    )
    return found


def opset_of(model: ir.Model, root: Root) -> int:
    """Return the version of the standard domain that `root` uses."""
    imports = root.graph.opset_imports or model.opset_imports
    return imports.get("", imports.get("ai.onnx", 1))


def graphs(root: ir.Graph) -> list[ir.Graph]:
    """Return `root` and the graphs inside it, outer before inner, in node order."""
    found = [root]
    for graph in found:
        for node in graph:
            # Asked here as well: this runs for every node, many times.
            if node.op_type in _WITH_BODIES or node.domain:
                found.extend(subgraphs(node))
    return found


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """Return the graphs that are attributes of `node`, in the order of its attributes."""
    found: list[ir.Graph] = []
    if not node.domain and node.op_type not in _WITH_BODIES:
        return found
    for attribute in node.attributes.data.values():
        kind = attribute.type
        if kind is ir.AttributeType.GRAPH and not attribute.is_ref():
            found.append(attribute.as_graph())
        elif kind is ir.AttributeType.GRAPHS and not attribute.is_ref():
            found.extend(attribute.as_graphs())
    return found


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield every node: of the graph, of its subgraphs, and of the functions."""
    for root in roots(model):
        for graph in graphs(root.graph):
            yield from graph


def count_nodes(model: ir.Model) -> int:
    """Return how many nodes the graph, its subgraphs and its functions have."""
    return sum(len(graph) for root in roots(model) for graph in graphs(root.graph))


def annotated_names(model: ir.Model) -> frozenset[str]:
    """Return the values that a quantisation annotation refers to by name."""
    found: set[str] = set()
    for graph in graphs(model.graph):
        for value in values_of(graph):
            found.update(annotation(value).values())
    return frozenset(found)


def annotation(value: ir.Value) -> dict[str, str]:
    """Return the quantisation annotation of `value`, empty when it has none."""
    # Not `value.meta.get`, which goes through three calls: this is asked of every value.
    found: dict[str, str] | None = value.meta.data.get(_ANNOTATION)
    return found or {}


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield what `graph` itself defines: inputs, other initializers, then node outputs."""
    yield from graph.inputs
    for value in graph.initializers.values():
        if not value.is_graph_input():
            yield value
    for node in graph:
        for output in node.outputs:
            if output.name:
                yield output


def is_dead(node: ir.Node) -> bool:
    """Whether nothing reads any output of `node`."""
    return not any(output.is_graph_output() or output.uses() for output in node.outputs)


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
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return True
    graph = old.graph
    producer = new.producer()
    if producer is None or producer.graph is not graph:
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


class Names:
    """The names taken in a model, to give out new ones that are free everywhere."""

    def __init__(self, model: ir.Model) -> None:
        """Take the model whose names are collected when the first new one is asked for."""
        self._model = model
        self._taken: set[str | None] | None = None

    def fresh(self, stem: str) -> str:
        """Return `stem`, or `stem` with the first number that makes it unique."""
        if self._taken is None:
            self._taken = {
                value.name
                for root in roots(self._model)
                for graph in graphs(root.graph)
                for value in values_of(graph)
            }
        name, number = stem, 0
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name


def separate_scopes(model: ir.Model) -> int:
    """Rename each value inside a subgraph whose name a surrounding graph uses as well.

    ONNX allows `t` in a branch and another `t` after the If. A rewrite that moves either of
    them would then change what the name means.

    Returns:
        How many values got a new name.
    """
    names: Names | None = None
    renamed = 0
    for root in roots(model):
        pending: list[tuple[ir.Graph, frozenset[str]]] = [(root.graph, frozenset())]
        while pending:
            graph, outer = pending.pop()
            children = [inner for node in graph for inner in subgraphs(node)]
            if not children and not outer:
                continue
            for value in list(values_of(graph)):
                if value.name in outer:
                    names = names or Names(model)
                    value.name = names.fresh(f"{value.name}_inner")
                    renamed += 1
            if children:
                visible = outer | {value.name or "" for value in values_of(graph)}
                pending.extend((inner, visible) for inner in reversed(children))
    return renamed
