"""Where the heads of an attention come from.

Queries, keys and values are tensors [batch, heads, rows, width]. Usually they are the three
dimensions [batch, rows, heads*width] of a projection, cut and turned:

    whole [B, N, S, D] = Transpose(split [B, S, N, D])
    split [B, S, N, D] = Reshape(flat [B, S, N*D])

Keys and values may be joined to those of the past, and each head of theirs may serve several of
the queries, which exporters spell as a repetition:

    [B, N, T, D] -> Unsqueeze [B, N, 1, T, D] -> Expand [B, N, G, T, D] -> Reshape [B, N*G, T, D]

Where there is one head, or each head of each example counts as an example, they have three
dimensions [batch, rows, width].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from leptonc.passes.facts.sizes import ONE, Size, number
from leptonc.passes.fusions.attention.scores import peel_scale
from leptonc.passes.rewriting.site import Site

# What the axes of a tensor are: batch, heads (n), rows (s), width (d).
_WHOLE, _SPLIT, _SINGLE = "bnsd", "bsnd", "bsd"

# More transpositions in a row are never written.
_MOST_STEPS = 8


@dataclass(frozen=True)
class Past:
    """The keys or values of earlier rows.

    Attributes:
        before: [batch, heads, past rows, width].
        joined: `before` and the new ones, [batch, heads, all rows, width].
    """

    before: ir.Value
    joined: ir.Value


@dataclass(frozen=True)
class Heads:
    """Queries, keys or values.

    Attributes:
        batch: Their number of examples.
        heads: How many heads are stored.
        rows: How many rows there are, those of the past left out.
        width: Of one head.
        value: The tensor that was found last, with `axes`.
        axes: What its axes are: `bnsd` for [batch, heads, rows, width], and `bsd` for a single
            head, which is its own `split` and `flat`.
        whole: The same as [batch, heads, rows, width], or None.
        split: The same as [batch, rows, heads, width], or None.
        flat: The same as [batch, rows, heads*width], or None.
        factor: What `flat` must still be multiplied by.
        repeats: How many queries in a row each head serves.
        past: What the rows were joined to, or None.
    """

    batch: Size
    heads: int
    rows: Size
    width: int
    value: ir.Value
    axes: str
    whole: ir.Value | None = None
    split: ir.Value | None = None
    flat: ir.Value | None = None
    factor: float = 1.0
    repeats: int = 1
    past: Past | None = None

    @property
    def is_flat(self) -> bool:
        """Whether they can be had in three dimensions with no heads turned."""
        return self.split is not None or "n" not in self.axes


def read_heads(site: Site, value: ir.Value, *, turned: bool = False) -> Heads | None:
    """Return what the heads `value` are made of, or None when their sizes are not known.

    Args:
        site: Where.
        value: [batch, heads, rows, width] or [batch, rows, width].
        turned: Whether its last two axes are the other way round.
    """
    axes = _WHOLE if site.facts.rank(value) == len(_WHOLE) else _SINGLE
    if turned:
        axes = axes[:-2] + axes[:-3:-1]
    repeats = 1
    past: Past | None = None
    whole: ir.Value | None = None
    for _ in range(_MOST_STEPS):
        whole = value if axes == _WHOLE else whole
        before = _turned(site, value, axes)
        if before is not None:
            value, axes = before
            continue
        repeated = _repeated(site, value, axes) if repeats == 1 and past is None else None
        if repeated is not None:
            value, repeats = repeated
            whole = None
            continue
        joined = _joined(site, value, axes) if past is None else None
        if joined is None:
            break
        value, past = joined
        whole = None
    found = _sized(site, value, axes)
    if found is None:
        return None
    if past is not None and found.factor != 1.0:
        # The rows of the past are not multiplied.
        found = replace(found, flat=None, factor=1.0)
    return replace(found, whole=whole, repeats=repeats, past=past)


def without_past(site: Site, heads: Heads) -> Heads | None:
    """Return the same heads with the join to the past seen as their origin."""
    if heads.past is None:
        return heads
    found = _sized(site, heads.past.joined, _WHOLE)
    joined = heads.past.joined
    return None if found is None else replace(found, whole=joined, repeats=heads.repeats)


def _sized(site: Site, value: ir.Value, axes: str) -> Heads | None:
    dims = site.facts.symbolic(value)
    if dims is None or len(dims) != len(axes):
        return None
    size = {"n": ONE, **dict(zip(axes, dims, strict=True))}
    heads, width = size["n"].number, size["d"].number
    if not heads or not width:
        return None
    found = Heads(size["b"], heads, size["s"], width, value, axes)
    if axes == _SINGLE:
        return replace(found, split=value, flat=value)
    if axes != _SPLIT:
        return found
    flat, factor = _flattened(site, value, size["b"], size["s"], number(heads * width))
    return replace(found, split=value, flat=flat, factor=factor)


def _turned(site: Site, value: ir.Value, axes: str) -> tuple[ir.Value, str] | None:
    """See through a Transpose, unless the value is laid out as it is wanted already."""
    node = site.producer(value, "Transpose")
    if node is None or node.inputs[0] is None or axes in (_SPLIT, _SINGLE):
        return None
    perm = node.attributes.get_ints("perm")
    if perm is None or len(perm) != len(axes):
        return None
    before = [""] * len(axes)
    for axis, source in enumerate(perm):
        before[source] = axes[axis]
    if before[0] != "b":
        return None
    return node.inputs[0], "".join(before)


def _repeated(site: Site, value: ir.Value, axes: str) -> tuple[ir.Value, int] | None:
    """See through the repetition of each head."""
    if "n" not in axes:
        return None
    place = axes.index("n")
    nodes = site.chain(value, "Reshape", "Expand", "Unsqueeze")
    if nodes is None:
        return None
    _, expand, unsqueeze = nodes
    inner = unsqueeze.inputs[0]
    dims, wide = site.facts.symbolic(inner), site.facts.symbolic(expand.outputs[0])
    narrow, after = site.facts.symbolic(expand.inputs[0]), site.facts.symbolic(value)
    if inner is None or dims is None or wide is None or narrow is None or after is None:
        return None
    if len(dims) != len(axes) or len(wide) != len(axes) + 1:
        return None
    groups, heads = wide[place + 1], dims[place]
    if not groups.number or not heads.number:
        return None
    new = number(1)
    if narrow != (*dims[: place + 1], new, *dims[place + 1 :]):
        return None
    if wide != (*dims[: place + 1], groups, *dims[place + 1 :]):
        return None
    if after != (*dims[:place], number(heads.number * groups.number), *dims[place + 1 :]):
        return None
    return inner, groups.number


def _joined(site: Site, value: ir.Value, axes: str) -> tuple[ir.Value, Past] | None:
    """See through the join to the keys or values of the past."""
    node = site.producer(value, "Concat")
    if axes != _WHOLE or node is None or len(node.inputs) != 2:
        return None
    before, new = node.inputs
    axis = node.attributes.get_int("axis", 0)
    if before is None or new is None or axis % len(axes) != axes.index("s"):
        return None
    return new, Past(before, value)


def _flattened(
    site: Site, split: ir.Value, batch: Size, rows: Size, width: Size
) -> tuple[ir.Value | None, float]:
    flat = site.before(split, "Reshape")
    if flat is None or site.facts.symbolic(flat) != (batch, rows, width):
        return None, 1.0
    value, factor, _ = peel_scale(site, flat)
    return value, factor
