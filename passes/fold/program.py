"""A piece of a graph on its own, to be computed now or when its result is read.

The nodes are copied out of the graph, so that later rewrites of it cannot change what they
compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.facts import Facts
from leptonc.passes.graph.constants import constant
from leptonc.passes.graph.content import HEAD_OF, unmapping

_RELABELS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Program:
    """A graph without inputs, for an engine to run.

    Attributes:
        model: The graph; it reads `weights`, and whoever runs it registers them as initializers.
        weights: Each with its data.
    """

    model: ir.Model
    weights: dict[ir.Value, ir.TensorProtocol]


def make_program(
    nodes: Iterable[ir.Node], results: Sequence[ir.Value], facts: Facts, opsets: dict[str, int]
) -> Program:
    """Copy `nodes` into a graph of their own that computes `results` from constants."""
    weights: dict[ir.Value, ir.TensorProtocol] = {}
    copies: dict[ir.Value, ir.Value] = {}
    copied: list[ir.Node] = []
    for node in nodes:
        inputs: list[ir.Value | None] = []
        for value in node.inputs:
            if value is not None and value not in copies:
                tensor = constant(value)
                assert tensor is not None
                copies[value] = ir.Value(
                    name=f"w{len(weights)}",
                    type=ir.TensorType(tensor.dtype),
                    shape=ir.Shape(tensor.shape.numpy()),
                )
                weights[copies[value]] = tensor
            inputs.append(None if value is None else copies[value])
        outputs = []
        for value in node.outputs:
            dtype = facts.dtype(value)
            copy = ir.Value(
                name=f"v{len(copies)}" if value.name else "",
                type=None if dtype is None else ir.TensorType(dtype),
            )
            copies[value] = copy
            outputs.append(copy)
        copied.append(
            ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), outputs=outputs)
        )
    ends = [copies[value] for value in results]
    graph = ir.Graph([], ends, nodes=copied, opset_imports=dict(opsets), name="fold")
    return Program(ir.Model(graph, ir_version=_IR_VERSION), weights)


# Old enough for every engine that reads the opsets, new enough for their types.
_IR_VERSION = 10


Moves = list[tuple[tuple[int, ...] | None, tuple[int, ...]]]


def relabelled(value: ir.Value, region: dict[ir.Node, None], facts: Facts) -> ir.LazyTensor | None:
    """Return `value` as a lazy tensor if it is a weight with its elements moved, else None.

    Transpose, Reshape and their kin move elements without computing with them, so NumPy's
    result is the engine's, and nothing needs to be tried.
    """
    moves: Moves = []
    current = value
    while (node := current.producer()) in region and node is not None:
        dims = facts.static(current)
        if node.domain or dims is None or node.inputs[0] is None:
            return None
        if node.op_type == "Transpose":
            given = node.attributes.get_ints("perm")
            order = tuple(reversed(range(len(dims)))) if given is None else tuple(given)
            moves.append((order, dims))
        elif node.op_type in _RELABELS:
            moves.append((None, dims))
        else:
            return None
        current = node.inputs[0]
    weight = constant(current)
    if weight is None or not moves or weight.dtype == ir.DataType.STRING:
        return None
    moves.reverse()
    source = weight

    def compute() -> ir.TensorProtocol:
        with unmapping([source]):
            array = np.ascontiguousarray(_moved(source, moves)).reshape(moves[-1][1])
            return ir.Tensor(array, dtype=source.dtype)

    result = ir.LazyTensor(
        compute, dtype=source.dtype, shape=ir.Shape(moves[-1][1]), name=value.name
    )
    if len(moves) == 1 and source.dtype.bitwidth >= 8 and not isinstance(source, ir.LazyTensor):
        result.meta[HEAD_OF] = partial(_first_bytes, source, moves)
    return result


def _moved(weight: ir.TensorProtocol, moves: Moves) -> np.ndarray[Any, Any]:
    array = weight.numpy()
    for order, dims in moves:
        array = array.reshape(dims) if order is None else array.transpose(order)
    return array


def _first_bytes(weight: ir.TensorProtocol, moves: Moves, size: int) -> bytes:
    with unmapping([weight]):
        array = _moved(weight, moves)
        first: bytes = array.flat[: max(1, size // array.itemsize)].tobytes()
        del array
    return first[:size]
