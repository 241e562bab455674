"""Common subexpressions: of two nodes that compute the same, the first serves both.

Two nodes compute the same when operator, attributes and inputs are the same and the operator
always answers alike. A node inside a subgraph is served by one in a graph around it that runs
before; a node in one branch of an If never serves the other branch.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Hashable

import onnx_ir as ir

from leptonc.passes.graph import Root, annotation, is_dead, subgraphs
from leptonc.passes.operators import is_deterministic

# Attributes with more data than this are not compared.
_LARGEST_TENSOR = 1 << 16

_Key = tuple[Hashable, ...]
_Seen = dict[_Key, ir.Node]


def merge_subexpressions(root: Root) -> int:
    """Rewire the readers of each repeated node; return how many nodes were left without any."""
    return _merge_in(root.graph, {})


def _merge_in(graph: ir.Graph, seen: _Seen) -> int:
    merged = 0
    added: list[_Key] = []
    for node in graph:
        for body in subgraphs(node):
            merged += _merge_in(body, seen)
        key = _key(node)
        if key is None:
            continue
        first = seen.setdefault(key, node)
        if first is node:
            added.append(key)
        else:
            merged += _serve(node, first)
    for key in added:
        del seen[key]
    return merged


def _serve(node: ir.Node, first: ir.Node) -> int:
    if is_dead(node):
        return 0
    # Outputs of a graph keep their own node: two outputs must not become one value.
    if any(output.is_graph_output() or annotation(output) for output in node.outputs):
        return 0
    for old, new in zip(node.outputs, first.outputs, strict=True):
        old.replace_all_uses_with(new)
    return 1


def _key(node: ir.Node) -> _Key | None:
    if not is_deterministic(node) or node.device_configurations:
        return None
    attributes: list[Hashable] = []
    for name in sorted(node.attributes):
        value = _comparable(node.attributes[name])
        if value is None:
            return None
        attributes.append((name, value))
    return (
        node.domain,
        node.op_type,
        tuple(None if value is None else id(value) for value in node.inputs),
        tuple(bool(output.name) for output in node.outputs),
        *attributes,
    )


def _comparable(attribute: ir.Attr) -> Hashable:
    """Return what two equal attributes share: bits for floats, so that -0.0 is not 0.0."""
    kind = attribute.type.name
    if attribute.is_ref():
        return kind, "reference", attribute.ref_attr_name
    value = attribute.value
    match attribute.type:
        case ir.AttributeType.INT | ir.AttributeType.STRING:
            return kind, value
        case ir.AttributeType.INTS | ir.AttributeType.STRINGS:
            return kind, tuple(value)
        case ir.AttributeType.FLOAT:
            return kind, struct.pack("<d", value)
        case ir.AttributeType.FLOATS:
            return kind, struct.pack(f"<{len(value)}d", *value)
        case ir.AttributeType.TENSOR:
            return _comparable_tensor(attribute.as_tensor())
        case _:
            return None


def _comparable_tensor(tensor: ir.TensorProtocol) -> Hashable:
    if tensor.nbytes > _LARGEST_TENSOR:
        return None
    shape = tuple(tensor.shape.numpy())
    if tensor.dtype == ir.DataType.STRING:
        return "TENSOR", shape, tuple(tensor.numpy().reshape(-1).tolist())
    return "TENSOR", tensor.dtype, shape, hashlib.sha256(tensor.tobytes()).digest()
