"""Whether a graph means the same at a later version of the standard domain.

Between opset 18 and 24 most operators changed only in the element types that they accept, or by
an attribute whose default keeps what they did. The few that changed in more are an obstacle.
"""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.graph import all_nodes

# The oldest opset that is raised, and the newest that engines read.
_OLDEST, _NEWEST = 18, 24

# The opsets at which an operator of the standard domain changed in more than its types: what it
# computes, the names of its modes, or the meaning of its inputs.
_CHANGED: dict[str, tuple[int, ...]] = {
    "Attention": (24,),
    "AveragePool": (19, 22),
    "DFT": (20,),
    "DeformConv": (19,),
    "GridSample": (20,),
    "GroupNormalization": (21,),
    "LpPool": (22,),
    "MaxPool": (22,),
    "MaxRoiPool": (22,),
    "Resize": (19,),
    "RoiAlign": (22,),
}


def obstacle_to_raising(model: ir.Model, version: int) -> str | None:
    """Return why `model` cannot be moved to opset `version` as it is, or None when it can."""
    current = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    if current >= version:
        return None
    refusal = f"opset {current} is not raised to {version}"
    if current < _OLDEST or version > _NEWEST or "" not in model.opset_imports:
        return refusal
    if model.functions:
        return f"{refusal}: the model has functions"
    for node in all_nodes(model):
        changes = () if node.domain else _CHANGED.get(node.op_type, ())
        if any(current < change <= version for change in changes):
            return f"{refusal}: {node.op_type} ({node.name!r}) changed in between"
    return None
