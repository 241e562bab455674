"""Folds what follows from shapes alone: nothing has to be computed for it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.facts import Facts
from leptonc.passes.fold.materialize import replace_with_tensor
from leptonc.passes.fold.shape_values import Ints, known_ints
from leptonc.passes.graph.names import Names
from leptonc.passes.graph.structure import Root, graphs

_INT64_BYTES = 8


def fold_shapes(root: Root, facts: Facts, opset: int, names: Names, room: int) -> tuple[int, int]:
    """Replace values whose integers are all known where something else reads them.

    Args:
        root: The graph, with its subgraphs; rewritten in place.
        facts: The shapes.
        opset: The version of the standard domain.
        names: Gives names to new initializers.
        room: Bytes that the model may grow by.

    Returns:
        How many values were replaced, and by how many bytes the model grew.
    """
    known: dict[ir.Value, Ints] = {}
    for graph in graphs(root.graph):
        for node in graph:
            found = known_ints(node, facts, known, opset)
            if found is not None:
                known[node.outputs[0]] = found
    replaced = grown = 0
    for value in [value for value, ints in known.items() if _is_wanted(value, ints, known)]:
        size = len(known[value].items) * _INT64_BYTES
        if grown + size > room:
            break
        replace_with_tensor(value, _tensor(known[value], value), root, names)
        replaced, grown = replaced + 1, grown + size
    return replaced, grown


def _is_wanted(value: ir.Value, ints: Ints, known: dict[ir.Value, Ints]) -> bool:
    """Whether `value` is known in full and read by something that is not."""
    node = value.producer()
    if not ints.complete or node is None or node.op_type in {"Constant", "Identity"}:
        return False
    if value.is_graph_output():
        return True
    for use in value.uses():
        reader = known.get(use.node.outputs[0]) if use.node.outputs else None
        if reader is None or not reader.complete or use.node.op_type == "Identity":
            return True
    return False


def _tensor(ints: Ints, value: ir.Value) -> ir.Tensor[np.ndarray]:
    array = np.array(ints.items, dtype=np.int64)
    return ir.Tensor(array.reshape(()) if ints.scalar else array, name=value.name)
