"""Where a rule may apply: a node, and what is known around it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.constants import constant_ints
from leptonc.passes.facts import Facts

_TYPES = {
    **dict.fromkeys(("perm", "axes", "pads", "starts", "ends"), ir.AttributeType.INTS),
    **dict.fromkeys(("to", "axis", "allowzero", "start", "end"), ir.AttributeType.INT),
    **dict.fromkeys(("then_branch", "else_branch"), ir.AttributeType.GRAPH),
}


def has_plain_attributes(node: ir.Node) -> bool:
    """Whether the attributes of `node` can be read.

    One may be that of a function call, and so not known, or of a type that no engine accepts.
    """
    return all(
        not attribute.is_ref() and attribute.type == _TYPES.get(attribute.name, attribute.type)
        for attribute in node.attributes.values()
    )


@dataclass(frozen=True)
class Site:
    """A node of the standard domain that a rule looks at.

    Attributes:
        node: The node.
        facts: What is known of its inputs.
        opset: The version of the standard domain that its graph imports.
    """

    node: ir.Node
    facts: Facts
    opset: int

    def input(self, index: int) -> ir.Value | None:
        """Return an input, or None when it is left out."""
        inputs = self.node.inputs
        return inputs[index] if index < len(inputs) else None

    def ints(self, index: int) -> tuple[int, ...] | None:
        """Return the elements of an input that is a small integer constant."""
        return constant_ints(self.input(index))

    def attribute_ints(self, name: str) -> tuple[int, ...] | None:
        """Return an attribute that is a list of integers, or None when it is left out."""
        found = self.node.attributes.get_ints(name)
        return None if found is None else tuple(found)
