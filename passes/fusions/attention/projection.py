"""Queries, keys and values that are linear layers of one input.

    q = x @ Wq + bq        [batch, rows, heads*width], and k and v likewise

Their weights may stand apart, or beside each other in one product that is split afterwards:

    q, k, v = Split(x @ [Wq Wk Wv] + [bq bk bv])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.fusions.attention.core import Attention
from leptonc.passes.fusions.attention.heads import Heads
from leptonc.passes.fusions.linear.read import Linear, known_tensor, read_linear, wide_row
from leptonc.passes.graph.operators import has_plain_attributes
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.site import Site

# Between a projection and the products there are fewer nodes.
_MOST_STEPS = 8

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Projection:
    """Some columns of a linear layer.

    Attributes:
        layer: The layer.
        start: The first column.
        stop: The column behind the last one.
        split: The node that cuts the columns out, or None where they are all.
    """

    layer: Linear
    start: int
    stop: int
    split: ir.Node | None

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """The nodes of the layer and its split."""
        return self.layer.nodes if self.split is None else (*self.layer.nodes, self.split)


def read_projections(site: Site, found: Attention) -> tuple[Projection, ...] | None:
    """Return where queries, keys and values come from when that is one input, or None."""
    parts: list[Projection] = []
    for heads in (found.query, found.key, found.value):
        part = _read(site, heads)
        if part is None or (parts and part.layer.input is not parts[0].layer.input):
            return None
        parts.append(part)
    return tuple(parts)


def _read(site: Site, heads: Heads) -> Projection | None:
    if heads.flat is None or heads.past is not None or heads.repeats != 1:
        return None
    layer = read_linear(site, heads.flat)
    if layer is not None:
        return None if layer.gemm else Projection(layer, 0, layer.sizes[1], None)
    node = heads.flat.producer()
    if node is None or node.op_type != "Split" or node.domain or not has_plain_attributes(node):
        return None
    layer = read_linear(site, node.inputs[0])
    ends = ends_of_parts(site, node)
    if layer is None or layer.gemm or ends is None or ends[-1] != layer.sizes[1]:
        return None
    index = list(node.outputs).index(heads.flat)
    return Projection(layer, ends[index], ends[index + 1], node)


def ends_of_parts(site: Site, node: ir.Node) -> list[int] | None:
    """Return at which columns a Split cuts, when it does so along the last axis."""
    rank = site.facts.rank(node.inputs[0])
    if rank is None or node.attributes.get_int("axis", 0) not in (-1, rank - 1):
        return None
    widths = [(site.facts.dims(value) or (None,))[-1] for value in node.outputs]
    known = [width for width in widths if width is not None]
    return [0, *accumulate(known)] if len(known) == len(widths) else None


def read_outside(site: Site, found: Attention, parts: Sequence[Projection]) -> str | None:
    """Return who else reads the projections of `found` or their weights, or None.

    They would then be computed, or stored, twice.
    """
    inside = {node for part in parts for node in part.nodes}
    for part, heads in zip(parts, (found.query, found.key, found.value), strict=True):
        for node in part.nodes[:-1]:
            reason = site.read_elsewhere(node.outputs[0], inside)
            if reason is not None:
                return reason
        reason = None if heads.flat is None else _read_apart(site, heads.flat, found.nodes)
        if reason is not None:
            return f"the projection would be computed twice: {reason}"
        reason = site.read_elsewhere(part.layer.weight, inside)
        if reason is not None:
            return f"the weight would be stored twice: {reason}"
    return None


def _read_apart(
    site: Site, value: ir.Value, nodes: tuple[ir.Node, ...], steps: int = _MOST_STEPS
) -> str | None:
    """Return who reads `value` other than through the heads of the attention, or None."""
    if value.is_graph_output():
        return f"{value.name!r} is an output of the graph"
    for use in value.uses():
        node = use.node
        if node in nodes:
            continue
        layout = site.producer(node.outputs[0], "Reshape", "Transpose", "Mul", "Div")
        if layout is not node or steps == 0:
            return site.read_elsewhere(value, nodes)
        reason = _read_apart(site, node.outputs[0], nodes, steps - 1)
        if reason is not None:
            return reason
    return None


def pack(build: Build, parts: Sequence[Projection]) -> tuple[ir.Value, ir.Value]:
    """Make the weight [inputs, columns] and the bias [columns] of all `parts` side by side."""
    layers = [part.layer for part in parts]
    dtype = layers[0].tensor.dtype
    cuts = [(part.start, part.stop) for part in parts]
    width = sum(stop - start for start, stop in cuts)

    def weight(*arrays: Array) -> Array:
        return np.concatenate(
            [array[:, start:stop] for array, (start, stop) in zip(arrays, cuts, strict=True)], 1
        )

    biases = [None if layer.bias is None else known_tensor(layer.bias) for layer in layers]
    sizes = [layer.sizes[1] for layer in layers]
    present = [bias for bias in biases if bias is not None]

    def bias(*arrays: Array) -> Array:
        rest = iter(arrays)
        rows = [
            np.zeros(stop - start, dtype.numpy())
            if own is None
            else wide_row(next(rest), size)[start:stop]
            for own, size, (start, stop) in zip(biases, sizes, cuts, strict=True)
        ]
        return np.concatenate(rows)

    whole = _whole(layers, cuts)
    packed = whole or build.weight(
        [layer.tensor for layer in layers],
        weight,
        dtype=dtype,
        shape=(layers[0].sizes[0], width),
    )
    return packed, build.weight(present, bias, dtype=dtype, shape=(width,))


def _whole(layers: Sequence[Linear], cuts: Sequence[tuple[int, int]]) -> ir.Value | None:
    """Return the weight of which the parts are all the columns in their order, or None."""
    one = layers[0].weight
    if any(layer.weight is not one for layer in layers) or cuts[0][0] != 0:
        return None
    if any(before[1] != after[0] for before, after in pairwise(cuts)):
        return None
    return one if cuts[-1][1] == layers[0].sizes[1] else None
