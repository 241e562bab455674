"""Standard operators that stand in for ONNX Runtime's own, where only types and shapes matter.

ONNX's inference does not know the operators of an engine, and what comes after one would be
unknown. Each of these has the type and the shape of a standard operator on the same inputs.
"""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.operators import has_plain_attributes

# Operators whose first output has the type and shape of their first input.
_LIKE_FIRST = frozenset(
    {
        ("", "SimplifiedLayerNormalization"),
        *(("com.microsoft", name) for name in ("Gelu", "FastGelu", "BiasGelu", "QuickGelu")),
        ("com.microsoft", "RotaryEmbedding"),
        ("com.microsoft", "SkipLayerNormalization"),
        ("com.microsoft", "SkipSimplifiedLayerNormalization"),
    }
)

# Operators like the standard one of another name, apart from the attributes named.
_RENAMED: dict[str, tuple[str, tuple[str, ...]]] = {
    "FusedConv": ("Conv", ("activation", "activation_params")),
    "FusedGemm": ("Gemm", ("activation", "activation_alpha", "activation_beta")),
}


def stand_in(node: ir.Node) -> None:
    """Turn `node` into a standard operator of the same type and shape, where there is one."""
    if not has_plain_attributes(node):
        return
    if (node.domain, node.op_type) in _LIKE_FIRST:
        _become(node, "Identity", inputs=1)
    elif node.domain == "com.microsoft" and node.op_type in _RENAMED:
        name, extra = _RENAMED[node.op_type]
        for attribute in extra:
            node.attributes.pop(attribute, None)
        if name == "Conv":
            node.resize_inputs(min(len(node.inputs), 3))
        node.domain, node.op_type = "", name
    elif node.domain == "com.microsoft" and node.op_type == "FusedMatMul":
        _stand_in_for_product(node)


def _stand_in_for_product(node: ir.Node) -> None:
    turned = [bool(node.attributes.get_int(name, 0)) for name in ("transA", "transB")]
    if any(node.attributes.get_int(name, 0) for name in ("transBatchA", "transBatchB")):
        return
    left, right = "km" if turned[0] else "mk", "nk" if turned[1] else "kn"
    _become(node, "Einsum" if any(turned) else "MatMul", inputs=2)
    if any(turned):
        equation = f"...{left},...{right}->...mn"
        node.attributes["equation"] = ir.AttrString("equation", equation)


def _become(node: ir.Node, operator: str, *, inputs: int) -> None:
    node.domain, node.op_type = "", operator
    node.attributes.clear()
    node.resize_inputs(inputs)
