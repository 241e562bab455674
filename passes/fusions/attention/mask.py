"""One mask for an operator, of all that is added to the scores.

Operators for attention add a tensor [batch, heads, rows, columns], and do not all broadcast its
last two dimensions. ONNX Runtime's Attention (opset 23) moreover takes a row in which the mask
is nowhere above the lowest number of its type as a row without any key, and answers 0, where the
Softmax weighs all keys alike. A mask is therefore raised to a little above that number: beside
either, the scores of a row are lost, so that nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from leptonc.passes.bounds.bounds import bounds, first_bounds
from leptonc.passes.bounds.interval import Bounds, within
from leptonc.passes.facts.sizes import ONE, Size, is_at_most
from leptonc.passes.fusions.attention.core import Attention
from leptonc.passes.fusions.attention.scores import Choice, Scores, Term
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.site import Site

# Of the lowest number of a type; its last place is as large as there.
_ABOVE_LOWEST = 0.99

# Larger constants take long to look at.
_MOST_ELEMENTS = 1 << 24

_RANK = 4


@dataclass(frozen=True)
class Mask:
    """What is added to the scores.

    Attributes:
        terms: What it is the sum of; none for no mask.
        bounds: Between which numbers the sum lies, or None when that is not known.
        dims: The dimensions of the scores, four of them.
        rank: How many dimensions the scores have: 4, or 3 where there is one head.
    """

    terms: tuple[Term, ...]
    bounds: Bounds | None
    dims: tuple[Size, ...]
    rank: int = 4


@dataclass(frozen=True)
class _Sized:
    """The dimensions of a mask, and those of the scores."""

    sizes: tuple[Size, ...]
    dims: tuple[Size, ...]


def read_mask(site: Site, found: Attention) -> Mask | str:
    """Return the mask of `found`, or why it is not known to be one.

    The last product is only defined where the scores have as many columns as there are values:
    where there are as many keys, no mask adds columns.
    """
    dims = site.facts.symbolic(found.scores.product.outputs[0])
    if dims is None or len(dims) not in (_RANK - 1, _RANK):
        return "the dimensions of the scores are not known"
    for term in found.scores.terms:
        value = term.condition if isinstance(term, Choice) else term
        reason = _misfit(site, value, dims, _as_many_keys(site, dims))
        if reason is not None:
            return reason
        summand = term.fill if isinstance(term, Choice) else term
        if site.facts.dtype(summand) != found.dtype:
            return f"{summand.name!r} is added to scores of another type"
    total = total_bounds(site, found.scores.terms, found.dtype)
    wide = dims if len(dims) == _RANK else (dims[0], ONE, *dims[1:])
    return Mask(found.scores.terms, total, wide, len(dims))


def total_bounds(site: Site, terms: Sequence[Term], dtype: ir.DataType) -> Bounds | None:
    """Return between which numbers the sum of `terms` lies, or None when that is not known."""
    total = _summed([_bounds(site, term, bounds) for term in terms], dtype)
    if total is None or not total.empty_rows:
        return total
    first = _summed([_bounds(site, term, first_bounds) for term in terms], dtype)
    kept = first is not None and not first.infinite
    return replace(total, empty_rows=False) if kept else total


def _summed(parts: Sequence[Bounds | None], dtype: ir.DataType) -> Bounds | None:
    total: Bounds | None = Bounds(0.0, 0.0)
    for part in parts:
        total = None if total is None or part is None else within(total.plus(part), dtype)
    return total


def _bounds(
    site: Site, term: Term, look: Callable[[Site, ir.Value | None], Bounds | None]
) -> Bounds | None:
    if not isinstance(term, Choice):
        return look(site, term)
    kept, fill = look(site, term.condition), bounds(site, term.fill)
    if fill is None:
        return None
    if kept is not None and kept.low == kept.high:
        return Bounds(0.0, 0.0) if bool(kept.low) == term.keeps else fill
    either = Bounds(0.0, 0.0).joined(fill)
    constant = site.tensor(term.condition)
    if constant is None or constant.size > _MOST_ELEMENTS:
        return either
    kept_here = np.atleast_1d(constant.numpy()) == term.keeps
    return replace(either, empty_rows=fill.infinite and not kept_here.any(axis=-1).all())


def _as_many_keys(site: Site, dims: tuple[Size, ...]) -> bool:
    values = site.facts.symbolic(site.input(1))
    return values is not None and len(values) == len(dims) and values[-2] == dims[-1]


def _misfit(site: Site, value: ir.Value, dims: tuple[Size, ...], as_many_keys: bool) -> str | None:
    """Return why adding `value` might make the scores larger, or None."""
    own = site.facts.symbolic(value)
    if own is None or len(own) > len(dims):
        return f"{value.name!r} is not known to have the dimensions of the scores"
    columns = own[-1:] if as_many_keys else ()
    rest = own[: len(own) - len(columns)]
    for size, wanted in zip(
        reversed(rest), reversed(dims[: len(dims) - len(columns)]), strict=False
    ):
        # A size cut at a number meets the size itself only where it was not cut, or is 1.
        if size not in (ONE, wanted) and not is_at_most(size, wanted):
            return f"{value.name!r} is not known to have the dimensions of the scores"
    return None


def lowest(dtype: ir.DataType) -> float:
    """Return the lowest finite number of a type."""
    return float(dtype.min)


def may_be_lowest(mask: Mask, dtype: ir.DataType) -> bool:
    """Whether an element may be so low that ONNX Runtime takes it as no key at all."""
    return mask.bounds is None or mask.bounds.low <= lowest(dtype) * _ABOVE_LOWEST


def build_mask(
    site: Site, build: Build, found: Attention, mask: Mask, *, raised: bool
) -> ir.Value | None:
    """Make the mask as one tensor [1 or batch, 1 or heads, rows, columns].

    Args:
        site: Where.
        build: Takes the nodes.
        found: What the mask is of.
        mask: Its parts.
        raised: Whether no element may be the lowest number of the type.
    """
    total: ir.Value | None = None
    sizes: tuple[Size, ...] = ()
    for term in mask.terms:
        value, own = _additive(site, build, term, found.dtype, raised=raised)
        sizes = own if total is None else _broadcast(sizes, own)
        total = value if total is None else build.op("Add", [total, value])
    if total is None:
        return None
    if len(sizes) == mask.rank == _RANK - 1:
        axis = build.constant(np.array([1], np.int64))
        total, sizes = build.op("Unsqueeze", [total, axis]), (sizes[0], ONE, *sizes[1:])
    return _fitted(site, build, found.scores, total, _Sized(sizes, mask.dims))


def _broadcast(left: tuple[Size, ...], right: tuple[Size, ...]) -> tuple[Size, ...]:
    rank = max(len(left), len(right))
    wide = [(ONE,) * (rank - len(sizes)) + sizes for sizes in (left, right)]
    return tuple(a if b == ONE else b for a, b in zip(*wide, strict=True))


def _additive(
    site: Site, build: Build, term: Term, dtype: ir.DataType, *, raised: bool
) -> tuple[ir.Value, tuple[Size, ...]]:
    if isinstance(term, Choice):
        fill = _raised_number(site, build, term.fill, dtype) if raised else term.fill
        zero = build.constant(np.zeros((), dtype.numpy()))
        branches = (zero, fill) if term.keeps else (fill, zero)
        return build.op("Where", [term.condition, *branches]), _dims(site, term.condition)
    if raised:
        return _raised(site, build, term, dtype), _dims(site, term)
    return term, _dims(site, term)


def _dims(site: Site, value: ir.Value) -> tuple[Size, ...]:
    found = site.facts.symbolic(value)
    assert found is not None
    return found


def _raised_number(site: Site, build: Build, fill: ir.Value, dtype: ir.DataType) -> ir.Value:
    number = site.scalar(fill)
    floor = lowest(dtype) * _ABOVE_LOWEST
    if number is None or not np.isfinite(number) or number > floor:
        return fill
    return build.constant(np.full((), floor, dtype.numpy()))


def _raised(site: Site, build: Build, term: ir.Value, dtype: ir.DataType) -> ir.Value:
    own = bounds(site, term)
    floor = lowest(dtype) * _ABOVE_LOWEST
    if own is not None and own.low > floor:
        return term
    choice = site.producer(term, "Where")
    if choice is not None and choice.inputs[0] is not None:
        branches = [_raised_branch(site, build, value, dtype) for value in choice.inputs[1:]]
        then, other = branches
        if then is not None and other is not None:
            return build.op("Where", [choice.inputs[0], then, other], like=term)
    return build.op("Max", [term, build.constant(np.full((), floor, dtype.numpy()))], like=term)


def _raised_branch(
    site: Site, build: Build, value: ir.Value | None, dtype: ir.DataType
) -> ir.Value | None:
    """Return a branch that is above the lowest number, or None when that takes a node."""
    own = bounds(site, value)
    if value is None or own is None:
        return None
    if own.low > lowest(dtype) * _ABOVE_LOWEST:
        return value
    tensor = site.tensor(value)
    if tensor is None or tensor.size != 1 or len(tensor.shape) > 0:
        return None
    return _raised_number(site, build, value, dtype)


def _fitted(site: Site, build: Build, scores: Scores, value: ir.Value, mask: _Sized) -> ir.Value:
    """Give `value` four dimensions, and as many rows and columns as the scores have."""
    sizes = mask.sizes
    missing = _RANK - len(sizes)
    if missing:
        axes = build.constant(np.arange(missing, dtype=np.int64))
        value, sizes = build.op("Unsqueeze", [value, axes]), (ONE,) * missing + sizes
    if sizes[2:] == mask.dims[2:]:
        return value
    numbers = [size.number for size in mask.dims[2:]]
    if None not in numbers:
        return build.op("Expand", [value, build.constant(np.array([1, 1, *numbers], np.int64))])
    # From the mask or an input where they have them: what is made of it is then the same in each
    # layer, and no layer keeps its heads for their size alone.
    graph = site.node.graph
    inputs = graph.inputs if isinstance(graph, ir.Graph) else ()
    known = [each for each in inputs if site.facts.symbolic(each)]
    others = (*known, scores.query, scores.key)
    sources = [(value, sizes), *((each, _dims(site, each)) for each in others)]
    parts = [build.constant(np.ones(2, np.int64))]
    parts += [_size(build, size, sources) for size in mask.dims[2:]]
    return build.op("Expand", [value, build.op("Concat", parts, {"axis": 0})])


def _size(
    build: Build, wanted: Size, sources: Sequence[tuple[ir.Value, tuple[Size, ...]]]
) -> ir.Value:
    """Make a vector of the one size `wanted`."""
    if wanted.number is not None:
        return build.constant(np.array([wanted.number], np.int64))
    for value, sizes in sources:
        for place, size in enumerate(sizes):
            if size == wanted:
                return build.op("Shape", [value], {"start": place, "end": place + 1})
    raise AssertionError("the scores have the rows of the queries and the columns of the keys")
