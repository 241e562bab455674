"""Graphs as ONNX text."""

from __future__ import annotations

import onnx.parser
import onnx_ir as ir

HEADER = '<ir_version: 10, opset_import: ["" : 20, "test" : 1]>\n'


def parse_text(text: str) -> ir.Model:
    """Parse a model, or a graph that is given a header."""
    return ir.from_proto(onnx.parser.parse_model(text if text.startswith("<") else HEADER + text))
