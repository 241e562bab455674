"""What must be true of a whole graph before it is handed to TensorRT."""

from __future__ import annotations

import onnx_ir as ir

from leptonc.backends.base import Target
from leptonc.backends.errors import UnsupportedTargetError
from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.graph.structure import all_nodes

MAX_OPSET = 24
_QUANTISED = {"int8": ir.DataType.INT8, "int4": ir.DataType.INT4}


def require_precision(model: ir.Model, target: Target) -> None:
    """Refuse a graph that is not what `target` asks for.

    Raises:
        UnsupportedTargetError: It holds no integers of the precision, or its opset is too new.
    """
    wanted = _QUANTISED.get(target.precision)
    if wanted is not None and not _holds(model, wanted):
        raise UnsupportedTargetError(
            f"the graph is asked for in {target.precision} and quantises nothing",
            where=target.name,
            fix="compile a graph with QuantizeLinear and DequantizeLinear, or use -p fp16",
        )
    opset = model.opset_imports.get("", 0)
    if opset > MAX_OPSET:
        raise UnsupportedTargetError(
            f"the graph is at opset {opset}; TensorRT reads up to {MAX_OPSET}",
            where=target.name,
            fix=f"export it at opset {MAX_OPSET} or lower",
        )


def _holds(model: ir.Model, dtype: ir.DataType) -> bool:
    """Whether numbers of `dtype` are dequantised."""
    facts = infer_facts(model)
    return any(
        facts.dtype(node.inputs[0]) == dtype
        for node in all_nodes(model)
        if node.op_type == "DequantizeLinear"
    )
