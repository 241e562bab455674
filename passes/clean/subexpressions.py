"""Common subexpressions: of two nodes that compute the same, the first serves both.

Two nodes compute the same when operator, attributes and inputs are the same and the operator
always answers alike. A node inside a subgraph is served by one in a graph around it that runs
before; a node in one branch of an If never serves the other branch.
"""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

import onnx_ir as ir

from leptonc.passes.graph.operators import is_deterministic
from leptonc.passes.graph.structure import Root, annotation, is_dead, subgraphs

# Attributes with more data than this are not compared.
_LARGEST_TENSOR = 1 << 16

_Key = tuple[Hashable, ...]


def merge_subexpressions(root: Root) -> int:
    """Rewire the readers of each repeated node; return how many nodes were left without any."""
    return _merge_in(root.graph, _Seen())


@dataclass
class _Seen:
    """The nodes that run before the one at hand.

    Attributes:
        alike: By operator and inputs. Most nodes are alone there, and are never looked at closer.
        exact: Those of `alike` that are not alone, by all that they compute from.
        keys: Their keys in `exact`.
    """

    alike: defaultdict[_Key, list[ir.Node]] = field(default_factory=lambda: defaultdict(list))
    exact: dict[_Key, ir.Node] = field(default_factory=dict)
    keys: dict[ir.Node, _Key] = field(default_factory=dict)

    def first(self, node: ir.Node, rough: _Key) -> ir.Node | None:
        """Return a node that computes the same, or remember `node` and return None."""
        alike = self.alike[rough]
        if alike:
            if len(alike) == 1:
                self._look_closer(alike[0])
            found = self._look_closer(node)
            if found is not None:
                return found
        alike.append(node)
        return None

    def forget(self, rough: _Key) -> None:
        """Forget the node of this key that was remembered last."""
        key = self.keys.pop(self.alike[rough].pop(), None)
        if key is not None:
            del self.exact[key]

    def _look_closer(self, node: ir.Node) -> ir.Node | None:
        key = _key(node)
        if key is None:
            return None
        first = self.exact.setdefault(key, node)
        if first is not node:
            return first
        self.keys[node] = key
        return None


def _merge_in(graph: ir.Graph, seen: _Seen) -> int:
    merged = 0
    added: list[_Key] = []
    for node in graph:
        for body in subgraphs(node):
            merged += _merge_in(body, seen)
        if not is_deterministic(node) or node.device_configurations:
            continue
        rough = _rough_key(node)
        first = seen.first(node, rough)
        if first is None:
            added.append(rough)
        else:
            merged += _serve(node, first)
    for rough in reversed(added):
        seen.forget(rough)
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


def _rough_key(node: ir.Node) -> _Key:
    return node.op_type, *[None if value is None else id(value) for value in node.inputs]


def _key(node: ir.Node) -> _Key | None:
    attributes: list[Hashable] = []
    for name in sorted(node.attributes):
        value = _comparable(node.attributes[name])
        if value is None:
            return None
        attributes.append((name, value))
    return (
        _rough_key(node),
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
