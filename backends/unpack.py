"""The graphs of a finished artifact with their weights, for comparison and inspection."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.artifact.manifest import Variant, Weight
from leptonc.runtime.artifact.reader import Artifact, open_artifact
from leptonc.runtime.engines.loaders import DEMANDS
from leptonc.runtime.engines.ort.declarations import declaration, declare_weights


def unpack(path: Path) -> dict[str, ir.Model]:
    """Return the graph of every variant by the variant's name; weights stay in the file.

    A payload that is no graph, which has no operator set, is left out.

    Raises:
        ArtifactError: The file is damaged or not an artifact.
    """
    with open_artifact(path, DEMANDS) as artifact:
        return {
            variant.name: _with_weights(artifact, variant, path)
            for variant in artifact.manifest.variants
            if variant.demands.opset
        }


def _with_weights(artifact: Artifact, variant: Variant, path: Path) -> ir.Model:
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
