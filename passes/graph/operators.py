"""What the operators of the standard domain may do, beyond computing a value."""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.graph.structure import subgraphs

RANDOM = frozenset(
    {
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike"),
    }
)

# Operators that draw random numbers, or update statistics, only while training.
TRAINING = frozenset({"Dropout", "BatchNormalization"})

# Operators on sequences and optional values, which are no tensors.
CONTAINERS = frozenset(
    {
        *("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt"),
        *("SequenceLength", "SequenceMap", "SplitToSequence", "ConcatFromSequence"),
        *("Optional", "OptionalGetElement", "OptionalHasElement"),
    }
)

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})

# Domains whose operators have no effect but their outputs.
_PURE = frozenset({"", "ai.onnx.ml", "com.microsoft"})


def is_removable(node: ir.Node, functions: frozenset[tuple[str, str]]) -> bool:
    """Whether `node` may go when nothing reads it; other people's operators may do more.

    Args:
        node: The node.
        functions: Domain and name of the model's own functions.
    """
    if node.domain not in _PURE and (node.domain, node.op_type) not in functions:
        return False
    inner = (inside for body in subgraphs(node) for inside in body)
    return all(is_removable(inside, functions) for inside in inner)


def is_deterministic(node: ir.Node) -> bool:
    """Whether two runs of `node` on the same inputs agree, as far as its operator tells."""
    if node.domain or subgraphs(node):
        return False
    return node.op_type not in RANDOM | TRAINING


_ATTRIBUTE_TYPES = {
    **dict.fromkeys(("perm", "axes", "pads", "starts", "ends"), ir.AttributeType.INTS),
    **dict.fromkeys(("to", "axis", "allowzero", "start", "end"), ir.AttributeType.INT),
    **dict.fromkeys(("then_branch", "else_branch"), ir.AttributeType.GRAPH),
}


def has_plain_attributes(node: ir.Node) -> bool:
    """Whether the attributes of `node` can be read.

    One may be that of a function call, and so not known, or of a type that no engine accepts.
    """
    return all(
        not attribute.is_ref()
        and attribute.type == _ATTRIBUTE_TYPES.get(attribute.name, attribute.type)
        for attribute in node.attributes.values()
    )
