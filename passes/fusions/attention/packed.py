"""Heads that are cut out of one tensor of queries, keys and values.

    y [B, S, 3*N*D] -> Reshape [B, S, 3, N, D] -> Transpose [3, B, N, S, D] -> part i

is the i-th third of y, cut into heads as if it came from a projection of its own:

    Split(y, 3) [B, S, N*D] -> Reshape [B, S, N, D] -> Transpose [B, N, S, D]

The parts are taken by Gather, or by Split and Squeeze. The second form is what attention is
recognised from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.sizes import number
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site
from leptonc.passes.targets import GENERIC, ORT_CPU, ORT_CUDA

# From [B, S, parts, N, D] to [parts, B, N, S, D].
_PERM = (2, 0, 3, 1, 4)

# Since this opset Squeeze takes its axes as an input, and Split its sizes.
_OPSET = 13


@dataclass(frozen=True)
class _Packed:
    """A tensor of several parts.

    Attributes:
        flat: [B, S, parts*N*D].
        parts: For each value that is one of them, which.
    """

    flat: ir.Value
    parts: tuple[tuple[ir.Value, int], ...]


def _pattern(site: Site) -> _Packed | None:
    if site.opset < _OPSET or site.attribute_ints("perm") != _PERM:
        return None
    cut = site.producer(site.input(0), "Reshape")
    flat = None if cut is None else cut.inputs[0]
    turned = site.node.outputs[0]
    if flat is None or turned.is_graph_output():
        return None
    parts: list[tuple[ir.Value, int]] = []
    for use in turned.uses():
        node = site.producer(use.node.outputs[0], "Gather", "Split")
        if node is not use.node or use.idx != 0 or node.attributes.get_int("axis", 0) != 0:
            return None
        found = _gathered(site, node) if node.op_type == "Gather" else _unbound(site, node)
        if found is None:
            return None
        parts.extend(found)
    return _Packed(flat, tuple(parts)) if parts else None


def _gathered(site: Site, node: ir.Node) -> list[tuple[ir.Value, int]] | None:
    indices = site.at(node).ints(1)
    if indices is None or len(indices) != 1 or site.facts.rank(node.inputs[1]) != 0:
        return None
    return [(node.outputs[0], indices[0])]


def _unbound(site: Site, node: ir.Node) -> list[tuple[ir.Value, int]] | None:
    """Read a Split into parts of 1, each of which loses that axis."""
    found: list[tuple[ir.Value, int]] = []
    for index, value in enumerate(node.outputs):
        dims = site.facts.dims(value)
        if dims is None or dims[0] != 1 or value.is_graph_output():
            return None
        for use in value.uses():
            squeeze = site.producer(use.node.outputs[0], "Squeeze")
            if squeeze is not use.node or site.at(squeeze).ints(1) not in ((0,), (-5,)):
                return None
            found.append((squeeze.outputs[0], index))
    return found


def _sizes(site: Site) -> tuple[int, int, int] | None:
    """Return the number of parts and of heads, and the width of a head."""
    dims = site.facts.dims(site.input(0)) or ()
    known = [size for size in dims[2:] if size]
    return (known[0], known[1], known[2]) if len(dims) == len(_PERM) and len(known) == 3 else None


def _check(site: Site, match: _Packed) -> str | None:
    cut, flat = site.facts.symbolic(site.input(0)), site.facts.symbolic(match.flat)
    sizes = _sizes(site)
    if cut is None or flat is None or sizes is None:
        return "the sizes of the heads are not known"
    parts, heads, width = sizes
    if flat != (*cut[:2], number(parts * heads * width)):
        return "the heads are not cut from three dimensions"
    if any(not -parts <= index < parts for _, index in match.parts):
        return "a part does not exist"
    return None


def _rewrite(site: Site, match: _Packed, build: Build) -> Rewritten:
    found = _sizes(site)
    assert found is not None
    parts, heads, width = found
    sizes = build.constant(np.full(parts, heads * width, np.int64))
    pieces = build.ops("Split", [match.flat, sizes], {"axis": 2}, outputs=[None] * parts)
    shape = build.constant(np.array([0, 0, heads, width], np.int64))
    replaced: dict[ir.Value, ir.Value] = {}
    turned: dict[int, ir.Value] = {}
    for old, index in match.parts:
        place = index % parts
        if place not in turned:
            cut = build.op("Reshape", [pieces[place], shape])
            turned[place] = build.op("Transpose", [cut], {"perm": [0, 2, 1, 3]}, like=old)
        replaced[old] = turned[place]
    return replaced


RULE: Rule[_Packed] = Rule(
    "unpack-heads",
    ("Transpose",),
    _pattern,
    _check,
    _rewrite,
    frozenset({GENERIC, ORT_CPU, ORT_CUDA}),
)
