"""Makes explicit what an engine tolerates only as long as it cannot see it.

Range takes scalars. ONNX Runtime computes with vectors of one element as well, but refuses them
when it can infer their rank before running; a rewrite that makes the rank known, such as taking
the branch of a constant If, would then turn a model that runs into one that does not load.
"""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.facts.facts import Facts
from leptonc.passes.graph.names import Names


def repair_ranges(graph: ir.Graph, facts: Facts, names: Names) -> int:
    """Squeeze the inputs of Range that are known to be `[1]`; return how many."""
    repaired = 0
    for node in graph:
        if node.op_type != "Range" or node.domain:
            continue
        for index, value in enumerate(node.inputs):
            if value is None or facts.static(value) != (1,):
                continue
            dtype = facts.dtype(value)
            scalar = ir.Value(
                name=names.fresh(f"{value.name}_scalar"),
                type=None if dtype is None else ir.TensorType(dtype),
            )
            squeeze = ir.Node("", "Squeeze", [value], outputs=[scalar], name=scalar.name)
            graph.insert_before(node, squeeze)
            node.replace_input_with(index, scalar)
            repaired += 1
    return repaired
