"""Which nodes may be computed ahead of time, and how much their results can take."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.facts import Facts
from leptonc.passes.graph.constants import constant
from leptonc.passes.graph.operators import (
    CONTAINERS,
    CONTROL_FLOW,
    RANDOM,
    TRAINING,
    has_plain_attributes,
)

# What a string is taken to need, and how many of them are folded at most.
_STRING_BYTES = 64
_MOST_STRINGS = 4096

_FLOATS = frozenset(
    {
        *(ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16),
    }
)


def obstacle(node: ir.Node, facts: Facts) -> str | None:
    """Return why `node`, all of whose inputs are constant, must not be computed now, or None."""
    if node.op_type in RANDOM:
        return "it draws random numbers"
    if node.op_type in TRAINING:
        return "it behaves differently in training"
    if node.op_type in CONTROL_FLOW:
        return "it runs a subgraph"
    if node.op_type in CONTAINERS:
        return "it works on sequences or optional values"
    if node.op_type == "DequantizeLinear":
        return "it would undo the quantisation of a weight"
    if not has_plain_attributes(node):
        return "its attributes are those of a function call, or of a wrong type"
    if node.op_type in {"Div", "Mod"}:
        return _division(node, facts)
    return None


def _division(node: ir.Node, facts: Facts) -> str | None:
    """Refuse integer divisions that stop the processor: by 0, or the lowest integer by -1."""
    dtype = facts.dtype(node.inputs[0])
    if dtype in _FLOATS:
        return None
    divisor = constant(node.inputs[1]) if len(node.inputs) == 2 else None
    if dtype is None or divisor is None:
        return "its divisor is not known yet"
    values = divisor.numpy()
    if not np.all(values):
        return "it divides by zero"
    if np.any(values.astype(np.int64) == -1):
        return "it divides by -1, which can overflow"
    return None


def result_bytes(value: ir.Value, facts: Facts) -> int | None:
    """Return how many bytes `value` takes at most, or None when that is not known.

    Args:
        value: An output of a node whose inputs are constant.
        facts: The shapes and types.
    """
    node, dtype = value.producer(), facts.dtype(value)
    assert node is not None
    if dtype is None or dtype == ir.DataType.UNDEFINED:
        return None
    dims = facts.static(value)
    if dims is not None:
        count = math.prod(dims)
    else:
        bound = _BOUNDS.get(node.op_type)
        limit = None if bound is None else bound(node, facts)
        if limit is None:
            return None
        count = limit
    if dtype == ir.DataType.STRING:
        return count * _STRING_BYTES if count <= _MOST_STRINGS else None
    return math.ceil(count * dtype.bitwidth / 8)


def _all_indices(node: ir.Node, facts: Facts) -> int | None:
    """NonZero: one index of each dimension for each element at most."""
    dims = facts.static(node.inputs[0])
    return None if dims is None else math.prod(dims) * max(1, len(dims))


def _no_longer(node: ir.Node, facts: Facts) -> int | None:
    """Unique, Compress: no more elements than went in; an index for each at most."""
    dims = facts.static(node.inputs[0])
    return None if dims is None else math.prod(dims)


_BOUNDS: dict[str, Callable[[ir.Node, Facts], int | None]] = {
    "NonZero": _all_indices,
    "Unique": _no_longer,
    "Compress": _no_longer,
}
