"""Rewrites a graph as a plan says: some layers in integers, some in float."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from leptonc.passes.base import Firing, PassStats
from leptonc.passes.errors import PlanError
from leptonc.passes.graph.insertion import Insertion
from leptonc.passes.graph.names import Names
from leptonc.passes.graph.opset import raise_opset
from leptonc.passes.graph.structure import count_nodes
from leptonc.passes.pipeline import Context, run_on_valid
from leptonc.passes.quantize.layer_matrix import LayerMatrix
from leptonc.passes.quantize.methods import DYNAMIC, STATIC
from leptonc.passes.quantize.plan import (
    CONVOLUTIONS,
    PRODUCTS,
    TABLE,
    LayerChoice,
    QuantizationPlan,
    find_layers,
)
from leptonc.passes.quantize.products import MICROSOFT, DynamicProducts, rewrite_in_blocks
from leptonc.passes.quantize.static import dequantized, quantize_static
from leptonc.passes.quantize.tables import rewrite_table
from leptonc.passes.quantize.weights import rounded_weight
from leptonc.passes.ranges.table import Ranges
from leptonc.passes.targets import CONTRIB, UINT8_ACTIVATIONS

# The version of the standard domain whose DequantizeLinear takes blocks and INT4.
_BLOCKED_OPSET = 21
# The rows that share a scale in INT4 where no block is named and no engine operator is used.
_GENERIC_BLOCK = 128


@dataclass(frozen=True, eq=False)
class Quantize:
    """Carry out a plan.

    Attributes:
        plan: What becomes of each layer.
        ranges: What calibration observed; None where nothing is static.
        target: What the model is for, one of `leptonc.passes.TARGETS`.
    """

    name: ClassVar[str] = "quantize"
    plan: QuantizationPlan
    ranges: Ranges | None
    target: str

    def requires(self, model: ir.Model) -> str | None:
        """Return why the plan cannot be carried out on `model`, or None when it can."""
        layers = {layer.name for layer in find_layers(model)}
        for choice in self.plan.quantized:
            if choice.layer not in layers:
                return f"the plan quantises {choice.layer!r}, which is no layer of this graph"
        if self.ranges is None and any(c.method == STATIC for c in self.plan.quantized):
            return "static layers need a calibration table"
        return None

    def run(self, model: ir.Model, _: Context = Context()) -> PassStats:
        """Rewrite `model` in place.

        Raises:
            PlanError: A choice that the layer or the target does not allow.
            RangesError: A range is missing.
        """
        before = count_nodes(model)
        names = Names(model)
        insert = Insertion(model.graph, names)
        nodes = {str(node.outputs[0].name): node for node in model.graph if node.outputs}
        chosen = [(nodes[choice.layer], choice) for choice in self.plan.quantized]
        for node, choice in chosen:
            choice.require_possible()
            _require_form(node, choice, self.target)
        symmetric = self.target not in UINT8_ACTIVATIONS
        static = {
            node: replace(choice, symmetric=symmetric)
            for node, choice in chosen
            if choice.method == STATIC
        }
        if static:
            assert self.ranges is not None
            quantize_static(model.graph, static, self.ranges, insert)
        dynamic = DynamicProducts(insert)
        for node, choice in chosen:
            if choice.method == STATIC:
                continue
            if node.op_type == TABLE:
                rewrite_table(insert, node, choice)
            elif choice.method == DYNAMIC and not choice.block:
                dynamic.rewrite(node, choice)
            elif node.op_type in PRODUCTS and self.target in CONTRIB:
                rewrite_in_blocks(insert, node, choice)
            else:
                _rewrite_weight(model, insert, node, choice, names)
        if any(node.domain == MICROSOFT for node in model.graph):
            model.opset_imports.setdefault(MICROSOFT, 1)
        _drop_unused(model.graph)
        counts = Counter(choice.method for _, choice in chosen)
        return PassStats(
            name=self.name,
            counts=tuple(sorted(counts.items())),
            nodes_before=before,
            nodes_after=count_nodes(model),
            fired=tuple(Firing(choice.method, choice.layer) for _, choice in chosen),
        )


def apply_plan(
    model: ir.Model, plan: QuantizationPlan, ranges: Ranges | None, target: str
) -> PassStats:
    """Quantise `model` in place, and say what was done.

    Args:
        model: The float graph that `plan` was made for.
        plan: What becomes of each layer.
        ranges: What calibration observed on the canonical graph; None where nothing is static.
        target: One of `leptonc.passes.TARGETS`.

    Raises:
        PassRefusedError: The plan is for another graph, or needs ranges.
        PlanError: A choice that the layer or the target does not allow.
        RangesError: A range is missing.
    """
    return run_on_valid(model, (Quantize(plan, ranges, target),))[0]


def _require_form(node: ir.Node, choice: LayerChoice, target: str) -> None:
    """Refuse a choice that no node can be made for.

    Raises:
        PlanError: With what is possible.
    """
    wrong = None
    if node.op_type == TABLE and (choice.method != "weight-only" or choice.bits != 8):
        wrong = "a table has its rows in 8 bits, weight-only"
    elif node.op_type in CONVOLUTIONS and choice.method == DYNAMIC:
        wrong = "a convolution is static, weight-only or float"
    elif node.op_type in CONVOLUTIONS and (choice.block or choice.bits != 8):
        wrong = "a convolution has one scale of 8 bits for each output channel"
    elif choice.method == DYNAMIC and target not in CONTRIB:
        wrong = f"{target} has no integer product with ranges found in each call"
    elif choice.method == STATIC and choice.block:
        wrong = "a static layer has one scale for each output channel"
    elif node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
        wrong = "a transposed convolution in groups shares scales among the groups"
    if wrong is not None:
        raise PlanError(
            f"the layer {choice.layer!r} ({node.op_type}) cannot be {choice.method}: {wrong}",
            fix="leave it in float, or choose another method",
        )


def _rewrite_weight(
    model: ir.Model, insert: Insertion, node: ir.Node, choice: LayerChoice, names: Names
) -> None:
    """Store a weight in integers behind a DequantizeLinear; the layer stays in float."""
    layout = LayerMatrix.of(node)
    weight = node.inputs[1]
    assert weight is not None
    if choice.bits == 8 and not choice.block:
        rounded = rounded_weight(layout, choice)
        insert.before(node)
        values, scale = rounded.values, rounded.scale[0]
        found = dequantized(insert, weight, layout, values, scale, choice=choice)
        node.replace_input_with(1, found)
        return
    raise_opset(model, _BLOCKED_OPSET, names)
    block = choice.block or _GENERIC_BLOCK
    rows = layout.rows
    if rows % block:
        raise PlanError(
            f"the layer {choice.layer!r} has {rows} rows, which blocks of {block} do not fill",
            fix="choose a block size that divides it",
        )
    rounded = rounded_weight(layout, replace(choice, block=block))
    values = layout.stored(rounded.values)
    dtype = ir.DataType.INT4 if choice.bits == 4 else ir.DataType.INT8
    scales = np.ascontiguousarray(rounded.scale if layout.axis == 1 else rounded.scale.T)
    stem = str(weight.name)
    element = dtype.numpy()
    integers = ir.Tensor(values.astype(element), dtype=dtype)
    inputs = [
        choice.note(insert.before(node).constant(integers, f"{stem}_int{choice.bits}")),
        insert.constant(scales, f"{stem}_scales"),
    ]
    attributes = {"axis": 1 - layout.axis, "block_size": block}
    made = insert.op(
        "DequantizeLinear",
        inputs,
        f"{stem}_dequantized",
        attributes,
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(layout.shape),
    )
    node.replace_input_with(1, made)


def _drop_unused(graph: ir.Graph) -> None:
    """Drop the float weights that nothing reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
