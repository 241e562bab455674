"""A node that computes the same from the same as one that is there already is not made again.

Rules fire once for each layer; what does not depend on the layer is made for the first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.constants import constant_ints
from leptonc.passes.graph.insertion import AttributeValue
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.site import Site

Attributes = Mapping[str, AttributeValue]

# An input of a node: a value, or the integers of a constant.
Operand = ir.Value | tuple[int, ...] | None


def ints(build: Build, *values: int) -> ir.Value:
    """Make a constant vector."""
    return build.constant(np.array(values, dtype=np.int64), "shape")


def once(
    site: Site,
    build: Build,
    op_type: str,
    operands: Sequence[Operand],
    attributes: Attributes | None = None,
    *,
    place: int = 0,
) -> ir.Value:
    """Return what a node of the same graph computes already, or make it.

    The node may come later in the graph: the rewriter restores the order.

    Args:
        site: Where it is read.
        build: Takes a new node.
        op_type: An operator of the standard domain with one output.
        operands: Its inputs.
        attributes: By name.
        place: Of an input that is a value, whose other readers are looked at.
    """
    running = operands[place]
    assert isinstance(running, ir.Value)
    for use in running.uses():
        node = use.node
        known = node.graph is site.node.graph or node in build.nodes
        if not known or node.op_type != op_type or node.domain:
            continue
        if len(node.outputs) == 1 and _same(node, operands, attributes or {}, build):
            return node.outputs[0]
    inputs = [ints(build, *item) if isinstance(item, tuple) else item for item in operands]
    return build.op(op_type, inputs, attributes)


def _same(node: ir.Node, operands: Sequence[Operand], attributes: Attributes, build: Build) -> bool:
    found = {name: attribute.value for name, attribute in node.attributes.items()}
    if found != dict(attributes) or len(node.inputs) != len(operands):
        return False
    for value, wanted in zip(node.inputs, operands, strict=True):
        equal = _holds(value, wanted, build) if isinstance(wanted, tuple) else value is wanted
        if not equal:
            return False
    return True


def _holds(value: ir.Value | None, wanted: tuple[int, ...], build: Build) -> bool:
    """Whether `value` is a constant of these integers, of the graph or just made."""
    if value is not None and value in build.weights and value.const_value is not None:
        return tuple(value.const_value.numpy().reshape(-1).tolist()) == wanted
    return constant_ints(value) == wanted
