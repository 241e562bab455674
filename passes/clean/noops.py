"""Nodes whose output is one of their inputs, bit for bit.

Each rule names the value that the node's first output equals, or None. All rules hold for every
input that the operator accepts, and for each opset from 7 to 26; a rule that reads an attribute
does not fire in a function whose caller sets it.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from leptonc.passes.facts.onnx_inference import Dims
from leptonc.passes.graph.constants import constant_bool, constant_ints
from leptonc.passes.graph.operators import has_plain_attributes
from leptonc.passes.rewriting.site import Site

# Before it, Cast, Dropout and broadcasting were spelled in other ways.
_FIRST_OPSET = 7

# An end of Slice beyond any dimension: exporters write INT32_MAX or INT64_MAX.
_ENDLESS = 2**31 - 1

Rule = Callable[[Site], "ir.Value | None"]


def noop(site: Site) -> ir.Value | None:
    """Return the input that the first output of the node at `site` equals, or None."""
    node = site.node
    rule = _RULES.get(node.op_type)
    if rule is None or node.domain or site.input(0) is None or not has_plain_attributes(node):
        return None
    if site.opset < _FIRST_OPSET and node.op_type != "Identity":
        return None
    if any(output.name and _is_read(output) for output in node.outputs[1:]):
        return None
    return rule(site)


def _is_read(value: ir.Value) -> bool:
    return value.is_graph_output() or bool(value.uses())


def _identity(site: Site) -> ir.Value | None:
    return site.input(0)


def _cast(site: Site) -> ir.Value | None:
    to = site.node.attributes.get_int("to")
    dtype = site.facts.dtype(site.input(0))
    return site.input(0) if dtype is not None and to == dtype.value else None


def _cast_like(site: Site) -> ir.Value | None:
    dtype = site.facts.dtype(site.input(0))
    same = dtype is not None and dtype == site.facts.dtype(site.input(1))
    return site.input(0) if same else None


def _transpose(site: Site) -> ir.Value | None:
    order = site.attribute_ints("perm")
    if order is None:
        rank = site.facts.rank(site.input(0))
        return site.input(0) if rank is not None and rank <= 1 else None
    return site.input(0) if list(order) == list(range(len(order))) else None


def _reshape(site: Site) -> ir.Value | None:
    """Reshape to the shape that the input has.

    Known dimensions must be asked for by number, or as 0 where 0 copies. One dimension may be
    -1, or unknown and copied: the others being equal, it is equal too. With a dimension that
    may be 0 the number of elements says nothing, hence the check on -1.
    """
    target = site.ints(1)
    dims = site.facts.dims(site.input(0))
    if target is None or dims is None or len(target) != len(dims):
        return None
    copies = not site.node.attributes.get_int("allowzero", 0)
    inferred = 0
    for asked, size in zip(target, dims, strict=True):
        if asked == 0 and copies:
            continue
        if asked == -1:
            inferred += 1
        elif asked != size:
            return None
    if inferred and not _others_fixed(target, dims):
        return None
    return site.input(0)


def _others_fixed(target: tuple[int, ...], dims: Dims) -> bool:
    others = [(asked, size) for asked, size in zip(target, dims, strict=True) if asked != -1]
    return all(asked == 0 or (size is not None and size > 0) for asked, size in others)


def _flatten(site: Site) -> ir.Value | None:
    axis = site.node.attributes.get_int("axis", 1)
    rank = site.facts.rank(site.input(0))
    return site.input(0) if rank == 2 and axis in {1, -1} else None


def _squeeze(site: Site) -> ir.Value | None:
    """Squeeze without axes of a tensor that has no dimension of size 1."""
    if site.input(1) is not None or "axes" in site.node.attributes:
        return None
    dims = site.facts.static(site.input(0))
    return site.input(0) if dims is not None and 1 not in dims else None


def _expand(site: Site) -> ir.Value | None:
    """Expand by ones, or to sizes that the input has."""
    target = site.ints(1)
    dims = site.facts.dims(site.input(0))
    if target is None or dims is None or len(target) > len(dims):
        return None
    tail = dims[len(dims) - len(target) :]
    same = all(asked in (1, size) for asked, size in zip(target, tail, strict=True))
    return site.input(0) if same else None


def _tile(site: Site) -> ir.Value | None:
    repeats = site.ints(1)
    ones = repeats is not None and len(site.node.inputs) == 2 and all(n == 1 for n in repeats)
    return site.input(0) if ones else None


def _pad(site: Site) -> ir.Value | None:
    pads = site.attribute_ints("pads") if site.opset < 11 else site.ints(1)
    none = pads is not None and not any(pads)
    return site.input(0) if none else None


def _slice(site: Site) -> ir.Value | None:
    """Slice from 0 to beyond the end in steps of 1, on whichever axes."""
    if site.opset < 10:
        starts, ends = site.attribute_ints("starts"), site.attribute_ints("ends")
        steps: tuple[int, ...] | None = ()
    else:
        starts, ends = site.ints(1), site.ints(2)
        given = site.input(4)
        steps = () if given is None else constant_ints(given)
    if starts is None or ends is None or steps is None:
        return None
    whole = not any(starts) and all(end >= _ENDLESS for end in ends)
    return site.input(0) if whole and all(step == 1 for step in steps) else None


def _single(site: Site) -> ir.Value | None:
    """Concat, Sum, Max, Min of one tensor."""
    return site.input(0) if len(site.node.inputs) == 1 else None


def _dropout(site: Site) -> ir.Value | None:
    """Dropout that is known not to train; since opset 12 an input says whether it does."""
    training = site.input(2)
    if training is None or constant_bool(training) is False:
        return site.input(0)
    return None


_RULES: dict[str, Rule] = {
    "Identity": _identity,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "Slice": _slice,
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Dropout": _dropout,
}
