"""Embedding tables in 8 bits, with a scale for each row.

    Gather(T, i)  ->  Cast(Gather(Q, i)) * Gather(s, i),     Q[r] = rint(T[r] / s[r])

Only the rows that are read are taken apart. The scale of a row reaches its largest element, so an
element is off by at most half of 1/127 of that.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from leptonc.passes.errors import PlanError
from leptonc.passes.graph.constants import constant
from leptonc.passes.graph.editing import take_over
from leptonc.passes.graph.insertion import Insertion
from leptonc.passes.quantize.plan import LayerChoice
from leptonc.passes.quantize.scales import nearest, symmetric_scale


def rewrite_table(insert: Insertion, node: ir.Node, choice: LayerChoice) -> None:
    """Replace a Gather of rows of a constant float32 table `[rows, width]`.

    Raises:
        PlanError: The table holds NaN or infinity.
    """
    table, rows = node.inputs[0], node.inputs[1]
    tensor = constant(table)
    assert table is not None
    assert tensor is not None
    array = np.asarray(tensor.numpy())
    largest = np.abs(array).max(axis=1, keepdims=True)
    if not np.isfinite(largest).all():
        raise PlanError(
            f"the table {table.name!r} holds NaN or infinity",
            fix="repair the checkpoint: such a row has no right answer in any precision",
        )
    scale = symmetric_scale(largest)
    values = nearest(array, scale).astype(np.int8)
    insert.before(node)
    axis = {"axis": 0}
    stem = str(node.outputs[0].name)
    # Several nodes may read one table: equal constants become one again when the graph is shared.
    integers = choice.note(insert.constant(values, f"{table.name}_int8"))
    quantized = insert.op("Gather", [integers, rows], f"{stem}_int8", axis)
    scales = insert.op(
        "Gather", [insert.constant(scale, f"{table.name}_scales"), rows], f"{stem}_scales", axis
    )
    cast = insert.op("Cast", [quantized], f"{stem}_float", {"to": int(ir.DataType.FLOAT)})
    take_over(node.outputs[0], insert.op("Mul", [cast, scales], f"{stem}_row"))
