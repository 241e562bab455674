"""Puts new nodes and constants into a graph, next to a node that is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.structure import Names

Attributes = Mapping[str, int | float | str]


class Insertion:
    """Inserts nodes before or after an anchor, one after the other."""

    def __init__(self, graph: ir.Graph, names: Names) -> None:
        """Insert into `graph`, with names that `names` gives."""
        self._graph = graph
        self._names = names
        self._anchor: ir.Node | None = None
        self._after = False

    def before(self, node: ir.Node) -> Insertion:
        """Put what is made next before `node`."""
        self._anchor, self._after = node, False
        return self

    def after(self, value: ir.Value) -> Insertion:
        """Put what is made next after the node that computes `value`, or first of all."""
        producer = value.producer()
        if producer is None:
            first = next(iter(self._graph))
            return self.before(first)
        self._anchor, self._after = producer, True
        return self

    def constant(self, array: np.ndarray[Any, Any] | ir.TensorProtocol, stem: str) -> ir.Value:
        """Register an initialiser."""
        name = self._names.fresh(stem)
        # Not ascontiguousarray: that makes a rank 1 array of a scalar.
        tensor = (
            ir.Tensor(np.array(array, order="C", copy=None), name=name)
            if isinstance(array, np.ndarray)
            else array
        )
        tensor.name = name
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        self._graph.register_initializer(value)
        return value

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        stem: str,
        attributes: Attributes | None = None,
        *,
        domain: str = "",
        dtype: ir.DataType | None = None,
        shape: ir.Shape | None = None,
    ) -> ir.Value:
        """Make a node with one output, and return that."""
        found = self.ops(op_type, inputs, (stem,), attributes, domain=domain)[0]
        if dtype is not None:
            found.type = ir.TensorType(dtype)
        found.shape = shape
        return found

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        stems: Sequence[str],
        attributes: Attributes | None = None,
        *,
        domain: str = "",
    ) -> tuple[ir.Value, ...]:
        """Make a node with an output for each of `stems`."""
        made = [
            ir.AttrInt64(key, value)
            if isinstance(value, int)
            else ir.AttrFloat32(key, value)
            if isinstance(value, float)
            else ir.AttrString(key, value)
            for key, value in (attributes or {}).items()
        ]
        outputs = [ir.Value(name=self._names.fresh(stem)) for stem in stems]
        node = ir.Node(domain, op_type, list(inputs), made, outputs=outputs, name=outputs[0].name)
        assert self._anchor is not None
        if self._after:
            self._graph.insert_after(self._anchor, node)
            self._anchor = node
        else:
            self._graph.insert_before(self._anchor, node)
        return tuple(outputs)


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let the readers of `old`, the graph among them, read `new`; its node goes.

    `new` gets the name and the declaration of `old`.
    """
    node = old.producer()
    assert node is not None
    assert node.graph is not None
    graph = node.graph
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    name, old.name = old.name, None
    new.name, new.type, new.shape = name, old.type, old.shape
    new.metadata_props.update(old.metadata_props)
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
    graph.remove(node)
