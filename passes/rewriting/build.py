"""Makes the nodes and weights of a rewrite, which join the graph when the rewrite is accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.facts import Facts
from leptonc.passes.graph.content import MADE_FROM, unmapping
from leptonc.passes.graph.insertion import AttributeValue, new_attribute, new_weight
from leptonc.passes.graph.names import Names


class Build:
    """Collects the new nodes, in the order in which they are made, and the new weights."""

    def __init__(self, names: Names, facts: Facts, stem: str) -> None:
        """Start a rewrite.

        Args:
            names: Gives free names.
            facts: Learns the types and shapes of what is made.
            stem: What the new names begin with.
        """
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []
        self._names = names
        self._facts = facts
        self._stem = stem

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        domain: str = "",
        like: ir.Value | None = None,
    ) -> ir.Value:
        """Make a node with one output, and return that.

        Args:
            op_type: The operator.
            inputs: Its inputs; None for one that is left out.
            attributes: By name; None leaves all at their defaults.
            domain: Of the operator.
            like: A value of the same element type and shape, whose facts the output gets.
        """
        return self.ops(op_type, inputs, attributes, domain=domain, outputs=(like,))[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        domain: str = "",
        outputs: Sequence[ir.Value | None],
    ) -> tuple[ir.Value, ...]:
        """Make a node with several outputs.

        Args:
            op_type: The operator.
            inputs: Its inputs; None for one that is left out.
            attributes: By name.
            domain: Of the operator.
            outputs: For each output a value of the same element type and shape, or None.
        """
        name = self._names.fresh(self._stem)
        values = [
            ir.Value(name=name if index == 0 else self._names.fresh(f"{name}_{index}"))
            for index in range(len(outputs))
        ]
        converted = [new_attribute(key, value) for key, value in (attributes or {}).items()]
        self.nodes.append(
            ir.Node(domain, op_type, list(inputs), converted, outputs=values, name=name)
        )
        for value, like in zip(values, outputs, strict=True):
            if like is not None:
                value.type, value.shape = like.type, like.shape
                self._facts.carry(like, value)
        return tuple(values)

    def constant(self, array: np.ndarray[Any, Any], stem: str = "") -> ir.Value:
        """Make a weight that is small enough to hold in memory."""
        name = self._names.fresh(stem or f"{self._stem}_constant")
        return self._keep(new_weight(array, name))

    def weight(
        self,
        sources: Sequence[ir.TensorProtocol],
        compute: Callable[..., np.ndarray[Any, Any]],
        *,
        dtype: ir.DataType,
        shape: Sequence[int],
        stem: str = "",
    ) -> ir.Value:
        """Make a weight that is computed from others each time it is read, and not kept.

        Args:
            sources: The tensors that it is made of.
            compute: Gets their arrays, and returns one of type `dtype` and shape `shape`.
            dtype: Of the result.
            shape: Of the result.
            stem: What its name begins with.
        """
        name = self._names.fresh(stem or f"{self._stem}_weight")
        tensors, dims = tuple(sources), tuple(shape)

        def make() -> ir.TensorProtocol:
            with unmapping(tensors):
                arrays = [tensor.numpy() for tensor in tensors]
                result = compute(*arrays)
                assert result.shape == dims, f"{name}: {result.shape} where {dims} was promised"
                borrowed = any(np.may_share_memory(result, array) for array in arrays)
                array = np.array(result, order="C", copy=True if borrowed else None)
                del arrays, result
            return ir.Tensor(array, dtype=dtype, name=name)

        tensor = ir.LazyTensor(make, dtype=dtype, shape=ir.Shape(dims), name=name)
        tensor.meta[MADE_FROM] = tuple(map(id, tensors))
        return self._keep(new_weight(tensor, name))

    def _keep(self, value: ir.Value) -> ir.Value:
        self.weights.append(value)
        return value
