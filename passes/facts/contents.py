"""The elements of INT64 vectors that are computed from sizes, as exporters do it.

For `x` of shape `[batch, 12, 64]`, `Shape(x)` is `[batch, 12, 64]`: not a constant, but
`Gather(Shape(x), 1)` is, and so is what is computed from it. Values of rank 0 and 1 are followed.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from leptonc.passes.facts.dims import output_dims, shape_content
from leptonc.passes.facts.dims_of_parts import clamp
from leptonc.passes.facts.sizes import Size, number, product
from leptonc.passes.facts.symbolic_view import LONGEST, Sizes, View


def _size_content(view: View) -> Sizes | None:
    dims = view.dims(0)
    return None if dims is None else (product(dims),)


def _gather_content(view: View) -> Sizes | None:
    data, indices = view.content(0), view.ints(1)
    if data is None or indices is None or view.known.is_scalar(view.value(0)):
        return None
    if any(not -len(data) <= index < len(data) for index in indices):
        return None
    return tuple(data[index] for index in indices)


def _slice_content(view: View) -> Sizes | None:
    data, starts, ends = view.content(0), view.ints(1), view.ints(2)
    if data is None or starts is None or ends is None or len(starts) != 1 or len(ends) != 1:
        return None
    axes = (0,) if view.value(3) is None else view.ints(3)
    steps = (1,) if view.value(4) is None else view.ints(4)
    if axes not in ((0,), (-1,)) or steps != (1,):
        return None
    return data[clamp(starts[0], len(data)) : clamp(ends[0], len(data))]


def _concat_content(view: View) -> Sizes | None:
    items: list[Size] = []
    for index in range(len(view.node.inputs)):
        part = view.content(index)
        if part is None or view.known.is_scalar(view.value(index)):
            return None
        items.extend(part)
    return tuple(items)


def _relabel_content(view: View) -> Sizes | None:
    """Squeeze, Unsqueeze and Reshape between a scalar and a vector of one element."""
    data = view.content(0)
    dims = output_dims(view)
    return data if data is not None and dims is not None and len(dims) <= 1 else None


def _same_content(view: View) -> Sizes | None:
    return view.content(0)


def _cast_content(view: View) -> Sizes | None:
    same = view.node.attributes.get_int("to") == ir.DataType.INT64.value
    return view.content(0) if same else None


def _arithmetic(compute: Callable[[Size, Size], Size | None]) -> Callable[[View], Sizes | None]:
    def rule(view: View) -> Sizes | None:
        left, right = view.content(0), view.content(1)
        if left is None or right is None:
            return None
        length = max(len(left), len(right))
        if min(len(left), len(right)) not in (1, length):
            return None
        items = [
            compute(left[index % len(left)], right[index % len(right)]) for index in range(length)
        ]
        known = tuple(item for item in items if item is not None)
        return known if len(known) == length else None

    return rule


def _quotient(left: Size, right: Size) -> Size | None:
    """Divide without remainder. Where a name is 0 there is no result to be wrong about."""
    by = right.number
    return None if by is not None and by <= 0 else left.over(right)


def _where_content(view: View) -> Sizes | None:
    """Read `Where(Equal(sizes, numbers), a, b)`: no size is negative."""
    condition = view.value(0)
    compare = None if condition is None else condition.producer()
    then, other = view.content(1), view.content(2)
    if compare is None or compare.op_type != "Equal" or compare.domain:
        return None
    if then is None or other is None or len(then) != len(other):
        return None
    left, right = (View(compare, view.known).content(index) for index in range(2))
    if left is None or right is None or len(left) != len(then) or len(right) != len(then):
        return None
    items = []
    for a, b, chosen, rest in zip(left, right, then, other, strict=True):
        same = _equals(a, b)
        if same is None:
            return None
        items.append(chosen if same else rest)
    return tuple(items)


def _equals(left: Size, right: Size) -> bool | None:
    """Say whether two sizes are the same, where that is known."""
    if left == right:
        return True
    if left.number is not None and right.number is not None:
        return False
    negative = [size for size in (left, right) if (size.number or 0) < 0]
    sums = [size for size in (left, right) if all(factor > 0 for _, factor in size.terms)]
    return False if negative and sums else None


# What an INT64 holds on both sides of 0.
_MOST = 2**63 - 1

_CONTENTS: dict[str, Callable[[View], Sizes | None]] = {
    "Shape": shape_content,
    "Size": _size_content,
    "Gather": _gather_content,
    "Slice": _slice_content,
    "Concat": _concat_content,
    "Squeeze": _relabel_content,
    "Unsqueeze": _relabel_content,
    "Reshape": _relabel_content,
    "Identity": _same_content,
    "Cast": _cast_content,
    "Where": _where_content,
    "Add": _arithmetic(lambda a, b: a.plus(b)),
    "Sub": _arithmetic(lambda a, b: a.plus(b.times(number(-1)))),
    "Mul": _arithmetic(lambda a, b: a.times(b)),
    "Div": _arithmetic(_quotient),
}


def output_content(view: View) -> Sizes | None:
    """Return the elements of the only output, or None when they do not follow from sizes."""
    rule = _CONTENTS.get(view.node.op_type)
    if rule is None or view.node.domain or len(view.node.outputs) != 1:
        return None
    found = rule(view)
    if found is None or len(found) > LONGEST:
        return None
    return found if all(abs(size.number or 0) <= _MOST for size in found) else None
