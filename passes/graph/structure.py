"""Walking a graph with its subgraphs and functions."""

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
