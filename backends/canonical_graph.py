"""One form for equal graphs, so that equal models give equal bytes.

ONNX Runtime's saved graphs carry stack traces, paths, and an order that depends on where
memory happened to lie. Here they lose all that: nodes in the order in which the outputs need
them, initialisers by name, no documentation strings, no metadata, no inferred types and shapes
(the engine infers them again). Names stay as they are, for people and for comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.backends.base import INLINE_BYTES, TYPE_NAMES, PayloadWeight


@dataclass(frozen=True)
class Detached:
    """A graph in canonical form, whole and as bytes without its large weights.

    Attributes:
        model: The graph with every weight.
        graph: Its serialised form without `weights`.
        weights: Sorted by name.
    """

    model: ir.Model
    graph: bytes
    weights: tuple[PayloadWeight, ...]


def canonicalise(model: ir.Model) -> Detached:
    """Bring `model` into canonical form, in place, and take weights above `INLINE_BYTES` out of it.

    Args:
        model: As an engine saved it; weights may be lazy.
    """
    _hoist_large_initializers(model)
    for graph in _graphs(model.graph):
        _strip(graph)
        _sort_nodes(graph)
    _strip_model(model)
    values = _detach(model)
    _read_into_memory(model)
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    model.graph.initializers.update(values)
    weights = tuple(
        PayloadWeight.of(name, tensor)
        for name, tensor in ((name, value.const_value) for name, value in values.items())
        if tensor is not None
    )
    return Detached(model, data, weights)


def _graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    yield graph
    yield from graph.subgraphs()


def _hoist_large_initializers(model: ir.Model) -> None:
    """Move large initialisers of subgraphs to the main graph, where weights are shared.

    An initialiser that is itself an output of its subgraph must stay.
    """
    taken = set(_all_names(model.graph))
    for graph in model.graph.subgraphs():
        for name, value in sorted(graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or tensor.nbytes <= INLINE_BYTES or value.is_graph_output():
                continue
            del graph.initializers[name]
            fresh, count = name, 0
            while fresh in taken:
                count += 1
                fresh = f"{name}_{count}"
            taken.add(fresh)
            value.name = fresh
            model.graph.initializers[fresh] = value


def _all_names(graph: ir.Graph) -> Iterator[str]:
    for each in _graphs(graph):
        yield from each.initializers
        yield from (str(value.name) for value in each.inputs)
        for node in each:
            yield from (str(value.name) for value in node.outputs)


def _strip_model(model: ir.Model) -> None:
    model.doc_string = None
    model.producer_name = "leptonc"
    model.producer_version = None
    model.domain = None
    model.model_version = None
    model.metadata_props.clear()
    model.graph.name = "main"
    used = {node.domain for node in model.graph.all_nodes()} | {""}
    for domain in sorted(model.opset_imports):
        version = model.opset_imports.pop(domain)
        if domain in used:
            model.opset_imports[domain] = version


def _strip(graph: ir.Graph) -> None:
    graph.doc_string = None
    graph.metadata_props.clear()
    interface = {*graph.inputs, *graph.outputs}
    for node in graph:
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.doc_string = None
            value.metadata_props.clear()
            if value not in interface:
                value.type, value.shape = None, None
    for value in interface:
        value.doc_string = None
        value.metadata_props.clear()
    ordered = sorted(graph.initializers.items())
    graph.initializers.clear()
    graph.initializers.update(ordered)


def _sort_nodes(graph: ir.Graph) -> None:
    """Order the nodes by depth first from the outputs: a function of the graph alone."""
    order: dict[ir.Node, None] = {}
    roots = [value.producer() for value in graph.outputs]
    stack = [(node, False) for node in reversed(roots) if node is not None]
    # Nodes that no output needs come last; the engine's optimiser normally leaves none.
    stack = [(node, False) for node in reversed(list(graph))] + stack
    while stack:
        node, ready = stack.pop()
        if node in order:
            continue
        if ready:
            order[node] = None
            continue
        stack.append((node, True))
        producers = [value.producer() for value in _inputs(node)]
        stack += [
            (producer, False)
            for producer in reversed(producers)
            if producer is not None and producer.graph is graph and producer not in order
        ]
    nodes = list(order)
    graph.remove(nodes)
    graph.extend(nodes)


def _inputs(node: ir.Node) -> Iterator[ir.Value]:
    """Give what a node needs, in order: its inputs, then what its subgraphs capture."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        for graph in _attribute_graphs(attribute):
            yield from graph.outputs
            for inner in graph.all_nodes():
                yield from (value for value in inner.inputs if value is not None)


def _attribute_graphs(attribute: ir.Attr) -> tuple[ir.Graph, ...]:
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    if attribute.type == ir.AttributeType.GRAPHS:
        return tuple(attribute.as_graphs())
    return ()


def _detach(model: ir.Model) -> dict[str, ir.Value]:
    """Take large initialisers out of the main graph."""
    taken: dict[str, ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= INLINE_BYTES or value.is_graph_output():
            continue
        if TYPE_NAMES.get(int(tensor.dtype), "str") != "str":
            taken[name] = value
            del model.graph.initializers[name]
    return taken


def _read_into_memory(model: ir.Model) -> None:
    """Make whole what stays in the graph: small tensors, text, and types that cannot be mapped."""
    for graph in _graphs(model.graph):
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
