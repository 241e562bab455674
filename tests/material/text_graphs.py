"""Graphs as ONNX text."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir

HEADER = '<ir_version: 10, opset_import: ["" : 20, "test" : 1]>\n'


def parse_text(text: str) -> ir.Model:
    """Parse a model, or a graph that is given a header."""
    return ir.from_proto(onnx.parser.parse_model(text if text.startswith("<") else HEADER + text))


def weight(model: ir.Model, name: str, array: object) -> None:
    """Give the free input `name` of the nodes a value."""
    tensor = ir.Tensor(np.asarray(array), name=name)
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape),
        const_value=tensor,
    )
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            for index, old in enumerate(node.inputs):
                if old is not None and old.name == name:
                    node.replace_input_with(index, value)
    model.graph.register_initializer(value)
