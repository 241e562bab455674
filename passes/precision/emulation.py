"""A graph of half-width floats, as one that computes in float32 and rounds at the same places.

Engines for CPUs have few kernels for float16 and none for bfloat16. In the emulation every value
that was half as wide is float32 and holds a number that the half-width type holds: each node
computes in float32, and a pair of casts rounds what comes out of it. That is what the kernels of
a GPU do, which sum in float32, up to the order of their sums.

Values keep their names, so that the emulation can be compared with a float32 graph value by value.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.facts import Facts, infer_facts
from leptonc.passes.graph.content import unmapping
from leptonc.passes.graph.names import Names
from leptonc.passes.graph.structure import graphs
from leptonc.passes.precision.half_types import HALF_TYPES
from leptonc.passes.precision.operators import MOVES
from leptonc.passes.rewriting.site import operator

_FLOAT = ir.DataType.FLOAT
_HALF = frozenset(half.dtype for half in HALF_TYPES.values())


def emulate_half(model: ir.Model) -> ir.Model:
    """Return a copy of `model` that computes in float32 what it computes in half the width.

    Inputs and outputs of the graph keep their types. Weights are widened when they are read.
    """
    copy = model.clone()
    facts = infer_facts(copy)
    nodes = {node.name or "" for graph in graphs(copy.graph) for node in graph}
    work = _Work(facts, Names(copy), nodes)
    for graph in graphs(copy.graph):
        work.convert(graph, main=graph is copy.graph)
    return copy


class _Work:
    def __init__(self, facts: Facts, names: Names, node_names: set[str]) -> None:
        self._facts = facts
        self._names = names
        self._node_names = node_names

    def convert(self, graph: ir.Graph, *, main: bool) -> None:
        """Convert one graph, inside which half-width values become float32 ones."""
        inputs = [value for value in graph.inputs if self._half(value) is not None]
        outputs = [self._half(value) for value in graph.outputs]
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype in _HALF and not value.is_graph_input():
                value.const_value = _widened(tensor)
                value.type = ir.TensorType(_FLOAT)
        for node in list(graph):
            self._convert_node(graph, node)
        for value in inputs:
            if main:
                self._read_widened(graph, value)
            else:
                value.type = ir.TensorType(_FLOAT)
        for index, half in enumerate(outputs if main else ()):
            if half is not None and not graph.outputs[index].is_graph_input():
                self._narrow_output(graph, index, half)

    def _half(self, value: ir.Value | None) -> ir.DataType | None:
        dtype = self._facts.dtype(value)
        return dtype if dtype in _HALF else None

    def _convert_node(self, graph: ir.Graph, node: ir.Node) -> None:
        halves = [self._half(value) for value in node.outputs]
        if not any(halves):
            return
        for name in ("value", "dtype"):
            _widen_attribute(node, name)
        is_cast = operator(node) == "Cast"
        exact = operator(node) in MOVES or operator(node) in ("If", "Loop", "Scan")
        for output, half in zip(node.outputs, halves, strict=True):
            if half is None or not output.name:
                continue
            if exact:
                output.type = ir.TensorType(_FLOAT)
            elif is_cast:
                self._follow(graph, node, output, [_FLOAT])
            else:
                self._follow(graph, node, output, [half, _FLOAT])

    def _follow(
        self, graph: ir.Graph, node: ir.Node, output: ir.Value, types: list[ir.DataType]
    ) -> None:
        """Let the readers of `output` read it through casts, the last of which gets its name."""
        name = output.name or ""
        uses = list(output.uses())
        output.name = self._names.fresh(f"{name}_exact")
        if operator(node) != "Cast":
            output.type = ir.TensorType(_FLOAT)
        value, last = output, node
        for number, to in enumerate(types):
            final = number == len(types) - 1
            made = name if final else self._names.fresh(f"{name}_rounded")
            last, value = self._cast(graph, last, value, to, made)
        value.shape = output.shape
        last.metadata_props.update(node.metadata_props)
        for use in uses:
            use.node.replace_input_with(use.idx, value)
        for index, declared in enumerate(graph.outputs):
            if declared is output:
                graph.outputs[index] = value

    def _read_widened(self, graph: ir.Graph, value: ir.Value) -> None:
        """Let the nodes read a half-width input of the graph in float32."""
        uses = list(value.uses())
        name = self._names.fresh(f"{value.name}_wide")
        out = ir.Value(name=name, type=ir.TensorType(_FLOAT), shape=value.shape)
        to = ir.AttrInt64("to", _FLOAT.value)
        for use in uses:
            use.node.replace_input_with(use.idx, out)
        if uses:
            node = ir.Node("", "Cast", [value], [to], outputs=[out], name=self._node_name(name))
            graph.insert_before(graph[0], node)

    def _narrow_output(self, graph: ir.Graph, index: int, half: ir.DataType) -> None:
        """Give an output of the graph the type that it had."""
        value = graph.outputs[index]
        name, shape = value.name or "", value.shape
        value.name = self._names.fresh(f"{name}_wide")
        _, narrow = self._cast(graph, None, value, half, name)
        narrow.shape = shape
        graph.outputs[index] = narrow

    def _cast(
        self,
        graph: ir.Graph,
        after: ir.Node | None,
        value: ir.Value,
        to: ir.DataType,
        name: str,
    ) -> tuple[ir.Node, ir.Value]:
        """Insert a Cast behind a node, or at the end of the graph."""
        out = ir.Value(name=name, type=ir.TensorType(to))
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", to.value)], outputs=[out])
        node.name = self._node_name(f"{name}_cast")
        if after is None:
            graph.append(node)
        else:
            graph.insert_after(after, node)
        return node, out

    def _node_name(self, stem: str) -> str:
        name, number = stem, 0
        while name in self._node_names:
            number += 1
            name = f"{stem}_{number}"
        self._node_names.add(name)
        return name


def _widen_attribute(node: ir.Node, name: str) -> None:
    """Widen what a node makes of nothing: Constant, ConstantOfShape, the random operators."""
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref():
        return
    if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _HALF:
        array = attribute.as_tensor().numpy().astype(np.float32)
        node.attributes[name] = ir.AttrTensor(name, ir.Tensor(array))
    elif attribute.type == ir.AttributeType.INT and attribute.as_int() in _HALF:
        node.attributes[name] = ir.AttrInt64(name, _FLOAT.value)


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    def make() -> ir.TensorProtocol:
        with unmapping([tensor]):
            return ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name)

    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(make, dtype=_FLOAT, shape=shape, name=tensor.name)
