"""What ONNX Runtime made of each quantised layer, compared with what was asked.

A layer is followed by its integer weight, whose name stays: the operator that reads it in the
engine's own graph says in which arithmetic the layer runs.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from leptonc.backends.errors import PlacementError
from leptonc.passes.quantize.methods import DYNAMIC, STATIC, WEIGHT_ONLY
from leptonc.passes.quantize.plan import LAYER_NOTE, METHOD_NOTE

# Operators that compute with integer weights, by what was asked for.
INTEGER_OPERATORS: Mapping[str, frozenset[str]] = {
    STATIC: frozenset({"QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat"}),
    DYNAMIC: frozenset(
        {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "MatMulNBits"}
    ),
    WEIGHT_ONLY: frozenset({"MatMulNBits", "DequantizeLinear", "Gather", "GatherBlockQuantized"}),
}


def read_integers(source: ir.Model, built: ir.Model) -> dict[str, str]:
    """Return the operator that computes each quantised layer, by layer.

    Args:
        source: The quantised graph, with notes on its integer weights.
        built: What the engine made of it.

    Raises:
        PlacementError: A layer that was asked for in integers is computed in float, or is gone.
    """
    found: dict[str, str] = {}
    for name, value in source.graph.initializers.items():
        layer = value.metadata_props.get(LAYER_NOTE)
        if layer is None or not value.uses():
            continue
        method = value.metadata_props[METHOD_NOTE]
        there = built.graph.initializers.get(name)
        operators = sorted({use.node.op_type for use in there.uses()} if there else ())
        wrong = [operator for operator in operators if operator not in INTEGER_OPERATORS[method]]
        if wrong or not operators:
            became = f"is read by {wrong[0]}" if wrong else "is not in the engine's graph any more"
            raise PlacementError(
                f"the layer {layer!r} was asked for in integers ({method}), and ONNX Runtime "
                f"computes it in float: its weight {name!r} {became}",
                where=f"layer {layer!r}",
                fix="leave it in float, or choose another --quantization; please report it with "
                "the model, since such a plan should not have been made",
            )
        found[layer] = operators[0]
    return dict(sorted(found.items()))
