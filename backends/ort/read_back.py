"""The graph of a finished artifact, as ONNX Runtime gets it."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.artifact.manifest import Variant, Weight
from leptonc.runtime.artifact.reader import Artifact
from leptonc.runtime.engines.ort.declarations import declaration, declare_weights


def read_graph(artifact: Artifact, variant: Variant) -> ir.Model:
    """Return the graph of `variant`; its weights stay in the file."""
    path = Path(artifact.path)
    declared = declare_weights(
        declaration(weight, path.name, artifact.sections[weight.section].offset)
        for weight in variant.weights
    )
    graph = bytes(artifact.view(variant.graph))
    model: ir.Model = ir.from_proto(onnx.ModelProto.FromString(graph + declared))
    for weight in variant.weights:
        model.graph.initializers[weight.name].const_value = _lazy(artifact, weight, path)
    return model


def _lazy(artifact: Artifact, weight: Weight, path: Path) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        path.name,
        artifact.sections[weight.section].offset + weight.offset,
        weight.length,
        ir.DataType(ELEMENT_TYPES[weight.dtype].onnx),
        shape=ir.Shape(weight.shape),
        name=weight.name,
        base_dir=path.resolve().parent,
    )
