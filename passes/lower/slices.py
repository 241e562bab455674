"""Parts of a tensor, taken in one go.

    Squeeze(Slice(x, i, i+1), axis)                 ->  Gather(x, i)        along the same axis
    Slice(x, 0, a), Slice(x, a, b), Slice(x, b, n)  ->  Split(x, [a, b-a, n-b])

The first is for constant i, the second for Slices of one axis of known size n that cover it
without overlap. Exact. It runs after the fusions, which look for the Slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.movement.slices import window
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.rule_pass import RulePass
from leptonc.passes.rewriting.site import Site

_FIRST_OPSET = 13
_LEAST_END = 2**31 - 1


@dataclass(frozen=True)
class Element:
    """A Slice of one element whose axis is then dropped.

    Attributes:
        slice: The Slice.
        axis: Counted from the front.
        index: Of the element; negative counts from the end.
    """

    slice: ir.Node
    axis: int
    index: int


def _element(site: Site) -> Element | None:
    node = site.producer(site.input(0), "Slice")
    dropped = site.ints(1)
    if node is None or dropped is None or len(dropped) != 1 or site.opset < _FIRST_OPSET:
        return None
    found, rank = window(site, node), site.facts.rank(node.inputs[0])
    if found is None or not rank or dropped[0] % rank != found.axis:
        return None
    last = found.start == -1 and found.end >= _LEAST_END
    follows = found.end == found.start + 1 and found.start != -1
    return Element(node, found.axis, found.start) if last or follows else None


def _alone(site: Site, match: Element) -> str | None:
    return site.read_elsewhere(match.slice.outputs[0], (site.node,))


def _gather(site: Site, match: Element, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    index = build.constant(np.asarray(match.index, np.int64), "index")
    inputs = [match.slice.inputs[0], index]
    return {out: build.op("Gather", inputs, {"axis": match.axis}, like=out)}


@dataclass(frozen=True)
class Parts:
    """Slices that cover an axis.

    Attributes:
        source: What they slice.
        axis: Counted from the front.
        slices: In the order of what they take.
        sizes: What each takes of the axis.
    """

    source: ir.Value
    axis: int
    slices: tuple[ir.Node, ...]
    sizes: tuple[int, ...]


def _parts(site: Site) -> Parts | None:
    source, here = site.input(0), window(site, site.node)
    dims = site.facts.dims(source)
    if source is None or here is None or dims is None or site.opset < _FIRST_OPSET:
        return None
    size = dims[here.axis]
    if not size:
        return None
    taken: dict[tuple[int, int], ir.Node] = {}
    for use in source.uses():
        node = use.node
        if use.idx != 0 or node.op_type != "Slice" or node.domain:
            continue
        if node.graph is not site.node.graph:
            continue
        found = window(site, node)
        if found is not None and found.axis == here.axis:
            start, stop, _ = slice(found.start, found.end).indices(size)
            taken.setdefault((start, stop), node)
    bounds = sorted(taken)
    starts, stops = [start for start, _ in bounds], [stop for _, stop in bounds]
    if len(bounds) < 2 or starts != [0, *stops[:-1]] or stops[-1] != size:
        return None
    if site.node not in taken.values():
        return None
    sizes = tuple(stop - start for start, stop in bounds)
    slices = tuple(taken[bound] for bound in bounds)
    # Each is better off with what drops its axis.
    if max(sizes) == 1 and all(_is_dropped(node.outputs[0]) for node in slices):
        return None
    return Parts(source, here.axis, slices, sizes)


def _is_dropped(value: ir.Value) -> bool:
    uses = tuple(value.uses())
    return len(uses) == 1 and uses[0].node.op_type == "Squeeze" and not value.is_graph_output()


def _split(site: Site, match: Parts, build: Build) -> Rewritten:
    del site
    sizes = build.constant(np.array(match.sizes, np.int64), "sizes")
    old = [node.outputs[0] for node in match.slices]
    new = build.ops("Split", [match.source, sizes], {"axis": match.axis}, outputs=old)
    return dict(zip(old, new, strict=True))


LOWER_SLICES = RulePass(
    "lower-slices",
    __doc__,
    (
        Rule("slice-element", ("Squeeze",), _element, _alone, _gather),
        Rule("slices-split", ("Slice",), _parts, None, _split),
    ),
)
