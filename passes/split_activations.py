"""Takes activations out of the operators that they were joined with, so that these can be quantised.

    FusedConv(x, W, b, activation)  ->  activation(Conv(x, W, b))
    FusedGemm(x, W, b, activation)  ->  activation(Gemm(x, W, b))

ONNX Runtime computes these in float only. Where a layer stays in float it joins them again.
"""

from __future__ import annotations

from typing import ClassVar

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.base import Firing, PassStats
from leptonc.passes.graph import Names, count_nodes
from leptonc.passes.insertion import Insertion, take_over

_MICROSOFT = "com.microsoft"
# The names of the attributes of the activation, by how the joined operator spells them.
_PARAMETERS = {"activation_alpha": "alpha", "activation_beta": "beta"}
# Of FusedConv: what the elements of `activation_params` are.
_LISTED = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}


@dataclass(frozen=True)
class SplitActivations:
    """Split FusedConv and FusedGemm."""

    name: ClassVar[str] = "split-activations"

    def requires(self, model: ir.Model) -> str | None:
        """Any model will do."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Rewrite the main graph in place."""
        before = count_nodes(model)
        insert = Insertion(model.graph, Names(model))
        fired: list[Firing] = []
        for node in list(model.graph):
            if node.domain == _MICROSOFT and node.op_type in ("FusedConv", "FusedGemm"):
                if _split(insert, node):
                    fired.append(Firing(self.name, str(node.name)))
        counts = (("activations", len(fired)),)
        return PassStats(self.name, counts, before, count_nodes(model), fired=tuple(fired))


def _split(insert: Insertion, node: ir.Node) -> bool:
    activation = node.attributes.get_string("activation", "")
    if not activation or (node.op_type == "FusedConv" and len(node.inputs) > 3):
        return False
    end = node.outputs[0]
    stem = str(end.name)
    insert.before(node)
    kept = [
        attribute
        for name, attribute in node.attributes.items()
        if not name.startswith("activation")
    ]
    plain = insert.op(node.op_type.removeprefix("Fused"), list(node.inputs), f"{stem}_linear")
    producer = plain.producer()
    assert producer is not None
    for attribute in kept:
        producer.attributes.add(attribute)
    plain.type, plain.shape = end.type, end.shape
    inputs: list[ir.Value | None] = [plain]
    attributes: dict[str, float] = {}
    params = list(node.attributes.get_floats("activation_params") or [])
    if activation == "Clip":
        import numpy as np

        inputs += [insert.constant(np.array(value, np.float32), "clip_bound") for value in params]
    else:
        attributes = dict(zip(_LISTED.get(activation, ()), params, strict=False))
    for name, parameter in _PARAMETERS.items():
        found = node.attributes.get(name)
        if found is not None:
            attributes[parameter] = float(found.as_float())
    take_over(end, insert.op(activation, inputs, f"{stem}_activation", attributes))
    return True
