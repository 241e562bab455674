"""Takes layers out of the operators that they were joined with, so that these can be quantised.

    FusedConv(x, W, b, activation)  ->  activation(Conv(x, W, b))
    FusedGemm(x, W, b, activation)  ->  activation(Gemm(x, W, b))
    Attention(x, W, b, mask)        ->  MultiHeadAttention(Split(MatMul(x, W) + b), mask)

ONNX Runtime computes these in float only. Activations of what stays in float it joins by itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from leptonc.passes.base import Firing, PassStats
from leptonc.passes.graph.constants import constant
from leptonc.passes.graph.insertion import Insertion, take_over
from leptonc.passes.graph.structure import Names, count_nodes
from leptonc.passes.pipeline import Context

MICROSOFT = "com.microsoft"
# How FusedGemm spells the attributes of its activation.
_PARAMETERS = {"activation_alpha": "alpha", "activation_beta": "beta"}
# What the elements of `activation_params` of FusedConv are.
_LISTED = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}
# Attributes that attention has in both forms.
_OF_ATTENTION = ("num_heads", "scale", "mask_filter_value", "unidirectional")


@dataclass(frozen=True)
class SplitLayers:
    """Split FusedConv, FusedGemm and packed Attention."""

    name: ClassVar[str] = "split-layers"

    def run(self, model: ir.Model, _: Context = Context()) -> PassStats:
        """Rewrite the main graph in place."""
        before = count_nodes(model)
        insert = Insertion(model.graph, Names(model))
        fired: list[Firing] = []
        for node in list(model.graph):
            name, operator = str(node.name), node.op_type
            if node.domain != MICROSOFT:
                continue
            if operator in ("FusedConv", "FusedGemm"):
                done = _split_activation(insert, node)
            else:
                done = operator == "Attention" and _split_attention(insert, node)
            if done:
                fired.append(Firing(f"split-{operator}", name))
        counts = Counter(firing.rule for firing in fired)
        after = count_nodes(model)
        return PassStats(
            self.name, tuple(sorted(counts.items())), before, after, fired=tuple(fired)
        )


def _split_activation(insert: Insertion, node: ir.Node) -> bool:
    activation = node.attributes.get_string("activation", "")
    if not activation or (node.op_type == "FusedConv" and len(node.inputs) > 3):
        return False
    end = node.outputs[0]
    stem = str(end.name)
    plain = insert.before(node).op(
        node.op_type.removeprefix("Fused"),
        list(node.inputs),
        f"{stem}_linear",
        dtype=end.dtype,
        shape=end.shape,
    )
    producer = plain.producer()
    assert producer is not None
    for name, attribute in node.attributes.items():
        if not name.startswith("activation"):
            producer.attributes.add(attribute)
    inputs: list[ir.Value | None] = [plain]
    attributes: dict[str, float] = {}
    params = list(node.attributes.get_floats("activation_params") or [])
    if activation == "Clip":
        inputs += [insert.constant(np.array(value, np.float32), "clip_bound") for value in params]
    else:
        attributes = dict(zip(_LISTED.get(activation, ()), params, strict=False))
    for name, parameter in _PARAMETERS.items():
        found = node.attributes.get(name)
        if found is not None:
            attributes[parameter] = float(found.as_float())
    take_over(end, insert.op(activation, inputs, f"{stem}_activation", attributes))
    return True


def _split_attention(insert: Insertion, node: ir.Node) -> bool:
    x, packed, bias, keep, past, added = [*node.inputs, *[None] * 6][:6]
    tensor = constant(packed)
    others = [output for output in node.outputs[1:] if output.name and output.uses()]
    if x is None or tensor is None or past is not None or others or len(node.inputs) > 6:
        return False
    unknown = set(node.attributes) - {*_OF_ATTENTION, "qkv_hidden_sizes"}
    if unknown:
        return False
    end = node.outputs[0]
    stem = str(end.name)
    columns = int(tensor.shape.numpy()[1])
    sizes = node.attributes.get_ints("qkv_hidden_sizes") or [columns // 3] * 3
    insert.before(node)
    whole = insert.op("MatMul", [x, packed], f"{stem}_qkv", dtype=ir.DataType.FLOAT)
    if bias is not None:
        whole = insert.op("Add", [whole, bias], f"{stem}_qkv_sum")
    split = insert.constant(np.array(sizes, np.int64), f"{stem}_widths")
    stems = [f"{stem}_{part}" for part in ("query", "key", "value")]
    parts = insert.ops("Split", [whole, split], stems, {"axis": -1})
    kept = {name: node.attributes[name].value for name in _OF_ATTENTION if name in node.attributes}
    inputs = [*parts, None, keep, added]
    while inputs[-1] is None:
        inputs.pop()
    take_over(end, insert.op("MultiHeadAttention", inputs, f"{stem}_heads", kept, domain=MICROSOFT))
    return True
