"""Two nodes in a row that only move or relabel elements, as one node or none.

With `x` the input of the inner node:

    Transpose(Transpose(x, p), q)   ->  Transpose(x, r) with r[i] = p[q[i]], or x if r is 0, 1, 2...
    Reshape(Reshape(x, s), t)       ->  Reshape(x, t), if t copies no dimension; the inner node may
                                        also be Flatten, Squeeze or Unsqueeze
    Squeeze(Unsqueeze(x, a), a)     ->  x, and the other way round
    Cast(Cast(x, wider), narrower)  ->  x, if x is an integer of the narrower type

The inner node stays when something else reads it. The outer node is changed in place, so that
its output keeps its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.graph.operators import has_plain_attributes
from leptonc.passes.rewriting.site import Site

_RELABELS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})

# Since this opset the axes of Squeeze and Unsqueeze are an input.
_AXES_INPUT = 13

_FIRST_OPSET = 7

# The integer types that hold every value of the key.
_WIDER: dict[ir.DataType, frozenset[ir.DataType]] = {
    ir.DataType.BOOL: frozenset(
        {
            *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
            *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
        }
    ),
    ir.DataType.INT8: frozenset({ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64}),
    ir.DataType.INT16: frozenset({ir.DataType.INT32, ir.DataType.INT64}),
    ir.DataType.INT32: frozenset({ir.DataType.INT64}),
    ir.DataType.UINT8: frozenset(
        {
            *(ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
            *(ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
        }
    ),
    ir.DataType.UINT16: frozenset(
        {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT32, ir.DataType.UINT64}
    ),
    ir.DataType.UINT32: frozenset({ir.DataType.INT64, ir.DataType.UINT64}),
}


@dataclass(frozen=True)
class Collapsed:
    """What a chain came to.

    Attributes:
        value: The value that the outer node's output equals, or None when the outer node was
            changed and still computes it.
    """

    value: ir.Value | None


Rule = Callable[[Site, Site], "Collapsed | None"]


def collapse(site: Site) -> Collapsed | None:
    """Collapse the node at `site` with the node before it, if a rule allows."""
    node, source = site.node, site.input(0)
    rule = _RULES.get(node.op_type)
    if rule is None or site.opset < _FIRST_OPSET or node.domain or source is None:
        return None
    producer = source.producer()
    if producer is None or producer.domain or source is not producer.outputs[0]:
        return None
    inner = Site(producer, site.facts, site.opset)
    if inner.input(0) is None or not (
        has_plain_attributes(node) and has_plain_attributes(producer)
    ):
        return None
    return rule(site, inner)


def _transposes(site: Site, inner: Site) -> Collapsed | None:
    if inner.node.op_type != "Transpose":
        return None
    first, second = _order(inner), _order(site)
    if first is None or second is None:
        return None
    if not sorted(first) == sorted(second) == list(range(len(first))):
        return None
    combined = [first[axis] for axis in second]
    if combined == sorted(combined):
        return Collapsed(inner.input(0))
    site.node.replace_input_with(0, inner.input(0))
    site.node.attributes["perm"] = ir.AttrInt64s("perm", combined)
    return Collapsed(None)


def _order(site: Site) -> list[int] | None:
    given = site.attribute_ints("perm")
    if given is not None:
        return list(given)
    rank = site.facts.rank(site.input(0))
    return None if rank is None else list(reversed(range(rank)))


def _reshapes(site: Site, inner: Site) -> Collapsed | None:
    target = site.ints(1)
    if inner.node.op_type not in _RELABELS or target is None:
        return None
    if 0 in target and not site.node.attributes.get_int("allowzero", 0):
        return None
    site.node.replace_input_with(0, inner.input(0))
    return Collapsed(None)


def _opposites(site: Site, inner: Site) -> Collapsed | None:
    """Axes count from the same tensor in both, the one with more dimensions or the one between."""
    if {site.node.op_type, inner.node.op_type} != {"Squeeze", "Unsqueeze"}:
        return None
    ours, theirs = _axes(site), _axes(inner)
    same = ours is not None and theirs is not None and sorted(ours) == sorted(theirs)
    return Collapsed(inner.input(0)) if same else None


def _axes(site: Site) -> tuple[int, ...] | None:
    return site.ints(1) if site.opset >= _AXES_INPUT else site.attribute_ints("axes")


def _casts(site: Site, inner: Site) -> Collapsed | None:
    if inner.node.op_type != "Cast":
        return None
    original = site.facts.dtype(inner.input(0))
    if original is None or original not in _WIDER:
        return None
    back, between = site.node.attributes.get_int("to"), inner.node.attributes.get_int("to")
    lossless = between in {wider.value for wider in _WIDER[original]}
    return Collapsed(inner.input(0)) if lossless and back == original.value else None


_RULES: dict[str, Rule] = {
    "Transpose": _transposes,
    "Reshape": _reshapes,
    "Squeeze": _opposites,
    "Unsqueeze": _opposites,
    "Cast": _casts,
}
