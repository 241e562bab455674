"""A rotary operator as it stands in a graph: the standard one, or ONNX Runtime's own."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.fusions.rotary.emit import MICROSOFT
from leptonc.passes.graph.insertion import AttributeValue
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.site import Site, operator

OPERATORS = ("RotaryEmbedding", f"{MICROSOFT}.RotaryEmbedding")

# Others change what is computed in ways that no rule here follows.
_FOLLOWED = frozenset({"interleaved", "num_heads", "rotary_embedding_dim"})


@dataclass(frozen=True)
class Rotary:
    """One rotary operator.

    Attributes:
        node: The node.
        x: What is rotated.
    """

    node: ir.Node
    x: ir.Value

    @property
    def own(self) -> bool:
        """Whether it is ONNX Runtime's own."""
        return self.node.domain == MICROSOFT

    @property
    def width(self) -> int:
        """How many columns of each head are rotated; 0 for all."""
        return self.node.attributes.get_int("rotary_embedding_dim", 0)

    @property
    def heads(self) -> int:
        """The attribute `num_heads`; 0 when it is left out."""
        return self.node.attributes.get_int("num_heads", 0)

    def again(self, build: Build, x: ir.Value, like: ir.Value | None, **changes: int) -> ir.Value:
        """Build the same rotation of another value, with other attributes; 0 leaves one out."""
        attributes: dict[str, AttributeValue] = {
            name: attribute.as_int() for name, attribute in self.node.attributes.items()
        }
        attributes.update(changes)
        kept = {name: value for name, value in attributes.items() if value}
        inputs = [x, *self.node.inputs[1:]]
        return build.op("RotaryEmbedding", inputs, kept, domain=self.node.domain, like=like)


def read_rotary(site: Site, value: ir.Value | None) -> Rotary | None:
    """Return the rotary operator that computes `value`, or None."""
    node = site.producer(value, *OPERATORS)
    if node is None or operator(node) not in OPERATORS or len(node.outputs) != 1:
        return None
    if not node.inputs or node.inputs[0] is None or set(node.attributes) - _FOLLOWED:
        return None
    return Rotary(node, node.inputs[0])
