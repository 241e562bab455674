"""Standard operators that stand in for ONNX Runtime's own, where only types and shapes matter.

ONNX's inference does not know the operators of an engine, and what comes after one would be
unknown. Each of these has the type and the shape of a standard operator on the same inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from leptonc.passes.graph.operators import has_plain_attributes

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

# Operators whose fourth output, the sum that they normalise, is like the first.
_SUMMING = frozenset({"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"})

# Operators like the standard one of another name, apart from the attributes named.
_RENAMED: dict[str, tuple[str, tuple[str, ...]]] = {
    "FusedConv": ("Conv", ("activation", "activation_params")),
    "FusedGemm": ("Gemm", ("activation", "activation_alpha", "activation_beta")),
}


@dataclass(frozen=True)
class StandIn:
    """A standard operator on the first inputs of a node.

    Attributes:
        operator: Of the standard domain.
        inputs: How many of the inputs it reads at most.
        attributes: Its own, by name.
        outputs: The outputs of the node that are like the one of the operator.
    """

    operator: str
    inputs: int
    attributes: Mapping[str, ir.Attr] = field(default_factory=dict)
    outputs: tuple[int, ...] = (0,)


def stand_in(node: ir.Node) -> StandIn | None:
    """Return a standard operator of the type and shape of `node`, where it needs one."""
    domain, name = node.domain, node.op_type
    if (domain, name) in _LIKE_FIRST:
        outputs = (0, 3) if name in _SUMMING else (0,)
        return StandIn("Identity", 1, outputs=outputs) if has_plain_attributes(node) else None
    if domain != "com.microsoft" or not has_plain_attributes(node):
        return None
    if name in _RENAMED:
        standard, extra = _RENAMED[name]
        kept = {key: value for key, value in node.attributes.items() if key not in extra}
        return StandIn(standard, 3, kept)
    return _stand_in_for_product(node) if name == "FusedMatMul" else None


def _stand_in_for_product(node: ir.Node) -> StandIn | None:
    turned = [bool(node.attributes.get_int(name, 0)) for name in ("transA", "transB")]
    if any(node.attributes.get_int(name, 0) for name in ("transBatchA", "transBatchB")):
        return None
    if not any(turned):
        return StandIn("MatMul", 2)
    left, right = "km" if turned[0] else "mk", "nk" if turned[1] else "kn"
    equation = ir.AttrString("equation", f"...{left},...{right}->...mn")
    return StandIn("Einsum", 2, {"equation": equation})
