"""What operands broadcast to, and which of them are known to change nothing."""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.facts.sizes import ONE, Size
from leptonc.passes.rewriting.site import Site

Sizes = tuple[Size, ...]

BROADCASTING = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "And", "Or", "Xor"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where"),
)


def broadcast(shapes: list[Sizes | None]) -> Sizes | None:
    """Return the shape that `shapes` broadcast to, or None when that is not known.

    A size other than 1 is the result where all others are 1, the same, or a name that must
    then be either.
    """
    if any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    rank = max(len(shape) for shape in known)
    result: list[Size] = []
    for axis in range(-rank, 0):
        sizes = [shape[axis] for shape in known if len(shape) >= -axis]
        wide = list(dict.fromkeys(size for size in sizes if size != ONE))
        fixed = [size for size in wide if size.number is not None]
        if len(wide) > 1 and len(fixed) != 1:
            return None
        result.append(fixed[0] if fixed else wide[0] if wide else ONE)
    return tuple(result)


def all_true(value: ir.Value | None, site: Site) -> bool:
    """Whether every element of a boolean value is known to be True.

    Positions counted by Range from 0 are never negative, however they are reshaped.
    """
    tensor = site.tensor(value)
    if tensor is not None:
        return tensor.dtype == ir.DataType.BOOL and tensor.size > 0 and bool(tensor.numpy().all())
    compare = site.producer(value, "GreaterOrEqual")
    if compare is None or len(compare.inputs) != 2:
        return False
    bound = site.scalar(compare.inputs[1])
    return bound is not None and bound <= 0 and _counts(compare.inputs[0], site)


def _counts(value: ir.Value | None, site: Site) -> bool:
    while True:
        node = site.producer(value, "Unsqueeze", "Reshape", "Expand", "Cast", "Range", "Squeeze")
        if node is None:
            return False
        if node.op_type == "Cast":
            to = ir.DataType(node.attributes.get_int("to", 0))
            if to not in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.FLOAT):
                return False
        if node.op_type == "Range":
            start, step = site.scalar(node.inputs[0]), site.scalar(node.inputs[2])
            return start is not None and start >= 0 and step is not None and step > 0
        value = node.inputs[0]
