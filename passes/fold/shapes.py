"""Folds what follows from shapes alone: nothing has to be computed for it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.facts import Facts
from leptonc.passes.fold.materialize import replace_with_tensor
from leptonc.passes.graph.names import Names
from leptonc.passes.graph.structure import Root, graphs

_INT64_BYTES = 8


def fold_shapes(root: Root, facts: Facts, names: Names, room: int) -> tuple[int, int]:
    """Replace values whose integers are all known where something else reads them.

    Args:
        root: The graph, with its subgraphs; rewritten in place.
        facts: What is known of the contents.
        names: Gives names to new initializers.
        room: Bytes that the model may grow by.

    Returns:
        How many values were replaced, and by how many bytes the model grew.
    """
    known: dict[ir.Value, tuple[int, ...]] = {}
    for graph in graphs(root.graph):
        for node in graph:
            value = node.outputs[0] if len(node.outputs) == 1 else None
            numbers = facts.ints(value)
            if value is not None and numbers is not None and node.op_type != "Constant":
                known[value] = numbers
    replaced = grown = 0
    for value in [value for value in known if _is_wanted(value, known)]:
        size = len(known[value]) * _INT64_BYTES
        if grown + size > room:
            break
        shape = () if facts.rank(value) == 0 else (-1,)
        array = np.array(known[value], dtype=np.int64).reshape(shape)
        replace_with_tensor(value, ir.Tensor(array, name=value.name), root, names)
        replaced, grown = replaced + 1, grown + size
    return replaced, grown


def _is_wanted(value: ir.Value, known: dict[ir.Value, tuple[int, ...]]) -> bool:
    """Whether `value`, which is known, is computed and read by something that is not known."""
    node = value.producer()
    if node is None or node.op_type == "Identity":
        return False
    return value.is_graph_output() or any(
        use.node.op_type == "Identity" or not known.keys() & use.node.outputs
        for use in value.uses()
    )
