"""The dimensions of parts of a tensor: what Gather, Slice and their like take."""

from __future__ import annotations

from leptonc.passes.facts.sizes import Size, at_most, number
from leptonc.passes.facts.symbolic_view import Sizes, View

_ENDLESS = 2**31 - 1


def gather(view: View) -> Sizes | None:
    """Return those of Gather."""
    data, indices = view.dims(0), view.dims(1)
    if not data or indices is None:
        return None
    axis = view.node.attributes.get_int("axis", 0) % len(data)
    return (*data[:axis], *indices, *data[axis + 1 :])


def gather_elements(view: View) -> Sizes | None:
    """Return those of GatherElements: those of the indices."""
    return view.dims(1)


def gather_nd(view: View) -> Sizes | None:
    """Return those of GatherND without batch dimensions."""
    data, indices = view.dims(0), view.dims(1)
    if data is None or not indices or view.node.attributes.get_int("batch_dims", 0) != 0:
        return None
    depth = indices[-1].number
    return None if depth is None else (*indices[:-1], *data[depth:])


def sliced(view: View) -> Sizes | None:
    """Return those of Slice, with a size of its own where it is not known what is left."""
    dims, starts, ends = view.dims(0), view.ints(1), view.content(2)
    if dims is None or starts is None or ends is None:
        return None
    axes = tuple(range(len(starts))) if view.value(3) is None else view.ints(3)
    steps = (1,) * len(starts) if view.value(4) is None else view.ints(4)
    if axes is None or steps is None or not len(axes) == len(starts) == len(ends) == len(steps):
        return None
    result = list(dims)
    for given, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = given % len(dims)
        length = _sliced(dims[axis], start, end, step)
        result[axis] = view.own(axis) if length is None else length
    return tuple(result)


def _sliced(size: Size, start: int, end: Size, step: int) -> Size | None:
    """Return how many elements of `size` a slice takes, or None when that is not known."""
    if end.number is not None and size.number is not None:
        return number(len(range(*slice(start, end.number, step).indices(size.number))))
    if start != 0 or step != 1:
        return None
    if end == size or (end.number is not None and end.number >= _ENDLESS):
        return size
    # A sum of names is not negative, and so counts from the front.
    if size.number is None or any(factor < 0 for _, factor in end.terms):
        return None
    return at_most(end, size.number)


def clamp(position: int, length: int) -> int:
    """Return a position as Slice and Shape count it, within 0 and `length`."""
    return min(max(position + length if position < 0 else position, 0), length)
