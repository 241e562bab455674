"""Stores a weight once that is another weight's transpose, or its bytes in another shape.

A tied embedding is `[V, H]` where it is looked up and `[H, V]` where it projects: the same
numbers twice. One of the two is kept, and the other is computed from it where it is read:

    w[H, V] = Transpose(v[V, H], perm=[1, 0])
    w[...]  = Reshape(v[...], shape of w)
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.content import digest, digest_transposed
from leptonc.passes.graph.insertion import new_weight
from leptonc.passes.graph.names import Names

# Smaller weights are not worth a node.
_SMALLEST = 4096


def tie_weights(model: ir.Model, values: list[ir.Value], names: Names) -> int:
    """Tie weights of the main graph; return how many are no longer stored.

    Args:
        model: Rewritten in place.
        values: The initializers that may be touched, no two of them equal.
        names: Gives names to what is new.
    """
    main = model.graph
    groups: defaultdict[tuple[ir.DataType, int], list[ir.Value]] = defaultdict(list)
    for value in values:
        tensor = value.const_value
        if tensor is None or value.graph is not main or value.is_graph_output():
            continue
        if tensor.dtype == ir.DataType.STRING or tensor.nbytes < _SMALLEST:
            continue
        groups[tensor.dtype, tensor.size].append(value)
    return sum(_tie_group(main, group, names) for group in groups.values() if len(group) > 1)


def _tie_group(main: ir.Graph, group: list[ir.Value], names: Names) -> int:
    stored: dict[bytes, ir.Value] = {}
    tied = 0
    for value in group:
        tensor = value.const_value
        assert tensor is not None
        content = digest(tensor)
        shape = tuple(int(size) for size in tensor.shape.numpy())
        original = stored.get(content)
        if original is not None:
            name = names.fresh(f"{value.name}_shape")
            constant = new_weight(np.array(shape, dtype=np.int64), name)
            main.register_initializer(constant)
            _compute(main, value, ir.Node("", "Reshape", [original, constant]))
            tied += 1
            continue
        if len(shape) == 2 and tensor.dtype.bitwidth >= 8:
            original = stored.get(digest_transposed(tensor))
            if original is not None and original.shape == ir.Shape([shape[1], shape[0]]):
                order = ir.AttrInt64s("perm", [1, 0])
                _compute(main, value, ir.Node("", "Transpose", [original], [order]))
                tied += 1
                continue
        stored[content] = value
    return tied


def _compute(main: ir.Graph, value: ir.Value, node: ir.Node) -> None:
    """Let `node` compute what was stored as `value`, before anything reads it."""
    name = value.name or ""
    del main.initializers[name]
    output = node.outputs[0]
    value.name, node.name = None, f"tie_{name}"
    output.name, output.type, output.shape = name, value.type, value.shape
    if len(main):
        main.insert_before(main[0], node)
    else:
        main.append(node)
    value.replace_all_uses_with(output)
