"""Makes nodes and constants, and puts them into a graph next to a node that is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.names import Names

AttributeValue = int | float | str | Sequence[int] | Sequence[float] | ir.TensorProtocol
Attributes = Mapping[str, AttributeValue]


def new_weight(array: np.ndarray[Any, Any] | ir.TensorProtocol, name: str) -> ir.Value:
    """Return a value that always holds `array`, for a graph to register."""
    if isinstance(array, np.ndarray | np.generic):
        # Not ascontiguousarray: that makes a rank 1 array of a scalar.
        array = ir.Tensor(np.array(array, order="C", copy=None))
    array.name = name
    return ir.Value(
        name=name,
        type=ir.TensorType(array.dtype),
        shape=ir.Shape(array.shape.numpy()),
        const_value=array,
    )


def new_attribute(name: str, value: AttributeValue) -> ir.Attr:
    """Convert what is common by hand: the IR asks each value what it can do, which takes long."""
    if isinstance(value, int):
        return ir.AttrInt64(name, int(value))
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(item, int) for item in value):
            return ir.AttrInt64s(name, [int(item) for item in value])
        if all(isinstance(item, float) for item in value):
            return ir.AttrFloat32s(name, list(value))
    return ir.convenience.convert_attribute(name, value)


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
        value = new_weight(array, self._names.fresh(stem))
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
        made = [new_attribute(key, value) for key, value in (attributes or {}).items()]
        outputs = [ir.Value(name=self._names.fresh(stem)) for stem in stems]
        node = ir.Node(domain, op_type, list(inputs), made, outputs=outputs, name=outputs[0].name)
        assert self._anchor is not None
        if self._after:
            self._graph.insert_after(self._anchor, node)
            self._anchor = node
        else:
            self._graph.insert_before(self._anchor, node)
        return tuple(outputs)
