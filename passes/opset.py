"""Whether a graph means the same at a later version of the standard domain.

The operators listed here changed, between the opsets named, only in the element types that they
accept or in an attribute whose default keeps what they did; what a node of theirs computes is
the same.  Every other operator that has a newer version is an obstacle.
"""

from __future__ import annotations

from functools import cache

import onnx_ir as ir

from leptonc.passes.graph import all_nodes

# The oldest opset that is raised, and the newest that engines read.
_FROM, _TO = 18, 24

# Newer versions of these, up to opset 24, differ in accepted types and in attributes only.
_WIDENED = frozenset(
    {
        *("Cast", "CastLike", "Constant", "ConstantOfShape", "Flatten", "Identity", "If", "Loop"),
        *("Pad", "Reshape", "Scan", "Shape", "Size", "Squeeze", "Transpose", "Unsqueeze"),
        *("DequantizeLinear", "QuantizeLinear", "QLinearMatMul", "TopK", "SplitToSequence"),
        *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Sin", "Sinh", "Tan"),
        *("Celu", "Elu", "Selu", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "Mish"),
        *("ThresholdedRelu", "Conv", "ConvTranspose", "InstanceNormalization", "GlobalMaxPool"),
        *("GlobalAveragePool", "Det", "Dropout", "EyeLike", "Round", "GatherND", "Gelu"),
        *("LpNormalization", "MaxUnpool", "GlobalLpPool", "DeformConv", "Multinomial"),
        *("ReduceMax", "ReduceMin", "IsInf", "IsNaN", "Equal", "Size", "AffineGrid"),
    }
)


def obstacle_to_raising(model: ir.Model, version: int) -> str | None:
    """Return why `model` cannot be moved to opset `version` as it is, or None when it can."""
    current = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    if current >= version:
        return None
    if current < _FROM or version > _TO:
        return f"opset {current} is not raised to {version}"
    if model.functions:
        return f"opset {current} is not raised to {version}: the model has functions"
    for node in all_nodes(model):
        if node.domain or node.op_type in _WIDENED:
            continue
        if _changed(node.op_type, current, version):
            return (
                f"opset {current} is not raised to {version}: "
                f"{node.op_type} ({node.name!r}) changed between them"
            )
    return None


@cache
def _changed(operator: str, current: int, version: int) -> bool:
    import onnx

    try:
        old = onnx.defs.get_schema(operator, current, "").since_version
        new = onnx.defs.get_schema(operator, version, "").since_version
    except onnx.defs.SchemaError:
        return True
    return bool(old != new)
