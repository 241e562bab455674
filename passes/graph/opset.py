"""Moving a graph to a later version of the standard domain, where it goes on meaning the same.

Between opset 13 and 24 most operators changed only in the element types that they accept, or by
an attribute whose default keeps what they did. From 18 on the reductions take their axes as an
input, and Split says how many outputs it has. The few that changed in more are an obstacle.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.insertion import new_weight
from leptonc.passes.graph.names import Names
from leptonc.passes.graph.structure import all_nodes

# The oldest opset that is raised, and the newest that engines read.
_OLDEST, _NEWEST = 13, 24

_AXES_INPUT = 18

# The opsets at which an operator of the standard domain changed in more than its types: what it
# computes, the names of its modes, or the meaning of its inputs.
_CHANGED: dict[str, tuple[int, ...]] = {
    "Attention": (24,),
    "BatchNormalization": (14,),
    "DFT": (20,),
    "DeformConv": (19,),
    "GridSample": (20,),
    "GroupNormalization": (21,),
    "MaxRoiPool": (22,),
    "OptionalGetElement": (18,),
    "OptionalHasElement": (18,),
    "Resize": (18, 19),
    "RoiAlign": (16, 22),
}

# The opsets at which the rounding of a pooling changed, and for AveragePool that of auto_pad.
_POOLS: dict[str, tuple[int, ...]] = {
    "AveragePool": (19, 22),
    "LpPool": (18, 22),
    "MaxPool": (22,),
}

_REDUCTIONS = frozenset(
    {
        *("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
        *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
    }
)


def obstacle_to_raising(model: ir.Model, version: int) -> str | None:
    """Return why `model` cannot be moved to opset `version`, or None when it can."""
    current = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    if current >= version:
        return None
    refusal = f"opset {current} is not raised to {version}"
    if current < _OLDEST or version > _NEWEST or "" not in model.opset_imports:
        return refusal
    if model.functions:
        return f"{refusal}: the model has functions"
    for node in all_nodes(model):
        changes = () if node.domain else _changes(node)
        if any(current < change <= version for change in changes):
            return f"{refusal}: {node.op_type} ({node.name!r}) changed in between"
    return None


def _changes(node: ir.Node) -> tuple[int, ...]:
    """Return the opsets at which a node of the standard domain means something else."""
    pool = _POOLS.get(node.op_type)
    if pool is None:
        return _CHANGED.get(node.op_type, ())
    # Rounding down, with pads that are given, is as it ever was.
    padded = node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    mode = node.attributes.get("ceil_mode")
    rounded_down = mode is None or (not mode.is_ref() and mode.value == 0)
    return () if padded and rounded_down else pool


def raise_opset(model: ir.Model, version: int, names: Names) -> None:
    """Move `model` to opset `version`, to which there must be no obstacle; never back.

    Args:
        model: Rewritten in place.
        version: Of the standard domain.
        names: Gives names to what becomes an input.
    """
    current = model.opset_imports.get("", 1)
    if current >= version:
        return
    if current < _AXES_INPUT <= version:
        for node in list(all_nodes(model)):
            if not node.domain and node.op_type in _REDUCTIONS:
                _give_axes(model, node, names)
            if not node.domain and node.op_type == "Split" and len(node.inputs) < 2:
                count = len(node.outputs)
                node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", count)
    model.opset_imports[""] = version


def _give_axes(model: ir.Model, node: ir.Node, names: Names) -> None:
    axes = node.attributes.get_ints("axes")
    if axes is None:
        return
    node.attributes.pop("axes")
    value = new_weight(np.array(axes, dtype=np.int64), names.fresh("axes"))
    model.graph.register_initializer(value)
    node.resize_inputs(2)
    node.replace_input_with(1, value)
