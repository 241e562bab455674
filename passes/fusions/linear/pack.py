"""Linear layers of one input become one, and a Split.

    y_i = x @ W_i + b_i   ->   y_1 .. y_n = Split(x @ [W_1 .. W_n] + [b_1 .. b_n])

with the weights side by side along the columns: queries, keys and values; gate and up.

Which layers go together: all MatMuls (or all Gemms) that read `x` with constant weights of
their own, when they are four at most; of more, those whose results meet before the next layer
with weights. The keys and values that every layer of a decoder computes from one encoder output
do not meet across layers: packing them all would keep them all in memory from the start.

Biases: with two and more, they are packed as well, zeros where a layer has none. A single one
stays an Add of its own, on its part only. Gemm packs any: its bias costs nothing.

A weight with another reader would be stored twice and is left alone.

Where: measured on 2 threads of a server CPU with ONNX Runtime at ONNX Runtime's highest level
(packed to separate), the copies that Split makes cost what the larger product saves:
QKV of BERT-base, 128 positions, batch 1 1.00 to 1.02, batch 8 1.04 to 1.06; gate and up 1.01 to
1.02 and 1.03 to 1.05; but 1 to 4 rows 0.93 to 0.98, and a tie at 16. So on ort-cpu only where so few rows are
known. `primitive` stays separate: those engines join the products by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from leptonc.passes.fusions.linear.read import (
    OPSET,
    Array,
    Linear,
    emit_product,
    known_tensor,
    read_linear,
    read_product,
    stored_twice,
    wide_row,
)
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site
from leptonc.passes.targets import NOT_PRIMITIVE, ORT_CPU

# The most rows for which packing is faster in ONNX Runtime on a CPU.
_FEW_ROWS = 16

# Up to this many layers are packed without asking where their results go.
_FEW_LAYERS = 4

# The most nodes that are looked at to see whether two results meet.
_FARTHEST = 128


def _pattern(site: Site) -> tuple[Linear, ...] | None:
    """Return the layers of one input, in graph order."""
    first = read_product(site, site.node.outputs[0])
    if first is None:
        return None
    found = _readers(site, first)
    if len(found) < 2 or found[0].product is not site.node:
        return None
    return tuple(_with_bias(site, layer) for layer in found)


def _readers(site: Site, first: Linear) -> list[Linear]:
    """Return the layers that can be packed with `first`, in graph order."""
    graph, kind = site.node.graph, site.node.op_type
    layers: dict[ir.Node, Linear] = {}
    parts = 0
    for use in first.input.uses():
        if use.node.graph is not graph or use.node.op_type != kind or use.node.domain:
            continue
        layer = read_product(site, use.node.outputs[0])
        if layer is None or layer.input is not first.input or not _is_alike(layer, first):
            continue
        packed = _packed_parts(site, layer)
        parts += packed
        if not packed:
            layers[use.node] = layer
    own = {node: layer for node, layer in layers.items() if _shared(site, layer) is None}
    layers = own if len(own) > 1 else layers
    if len(layers) + parts > _FEW_LAYERS:
        layers = _meeting(site, layers)
    if len(layers) < 2 or graph is None:
        return []
    return [layers[node] for node in graph if node in layers]


def _is_alike(layer: Linear, first: Linear) -> bool:
    same = layer.tensor.dtype == first.tensor.dtype and layer.transposed == first.transposed
    return same and layer.sizes[0] == first.sizes[0]


def _packed_parts(site: Site, layer: Linear) -> int:
    """Return of how many layers `layer` is packed already; 0 when it is one."""
    readers = [use.node for use in _with_bias(site, layer).output.uses()]
    return sum(len(node.outputs) for node in readers if node.op_type == "Split")


def _shared(site: Site, layer: Linear) -> str | None:
    return stored_twice(site, layer.weight, layer.nodes)


def _meeting(site: Site, layers: dict[ir.Node, Linear]) -> dict[ir.Node, Linear]:
    """Return the layers whose results meet those of the layer at `site`, as far as it goes."""
    reached = {node: _reached(site, node) for node in layers}
    together = {site.node} & set(layers)
    area = set(reached.get(site.node, ()))
    while True:
        near = [n for n in layers if n not in together and not area.isdisjoint(reached[n])]
        if not near:
            return {node: layer for node, layer in layers.items() if node in together}
        together.update(near)
        for node in near:
            area.update(reached[node])


def _reached(site: Site, start: ir.Node) -> set[ir.Node]:
    """Return the nodes that `start` leads to before the next layer with weights."""
    found: set[ir.Node] = set()
    pending = [start]
    while pending and len(found) < _FARTHEST:
        for output in pending.pop(0).outputs:
            for use in output.uses():
                if use.node in found or use.node.graph is not start.graph:
                    continue
                if not _has_weight(site, use.node):
                    found.add(use.node)
                    pending.append(use.node)
    return found


def _has_weight(site: Site, node: ir.Node) -> bool:
    if node.op_type not in {"MatMul", "Gemm", "Conv"} or len(node.inputs) < 2:
        return False
    return site.tensor(node.inputs[1]) is not None


def _with_bias(site: Site, layer: Linear) -> Linear:
    """Return `layer` with the Add of a bias that alone reads its product."""
    output = layer.product.outputs[0]
    readers = [use.node for use in output.uses()]
    if layer.bias is not None or output.is_graph_output() or len(readers) != 1:
        return layer
    if readers[0].graph is not site.node.graph:
        return layer
    whole = read_linear(site, readers[0].outputs[0])
    return whole if whole is not None and whole.product is layer.product else layer


def _check(site: Site, layers: tuple[Linear, ...]) -> str | None:
    if site.target == ORT_CPU and not _few_rows(site, layers[0]):
        return "the copies of Split cost more than one product saves, unless rows are few"
    for layer in layers:
        reason = _shared(site, layer)
        if reason is not None:
            return reason
    return None


def _few_rows(site: Site, layer: Linear) -> bool:
    dims = site.facts.static(layer.input)
    return dims is not None and int(np.prod(dims[:-1], dtype=np.int64)) <= _FEW_ROWS


def _rewrite(site: Site, layers: tuple[Linear, ...], build: Build) -> Rewritten:
    first = layers[0]
    if not first.gemm and sum(layer.bias is not None for layer in layers) < 2:
        layers = tuple(Linear(x.product, None, x.input, x.weight, None) for x in layers)
    widths = [layer.sizes[1] for layer in layers]
    weight = _packed_weight(build, layers)
    bias = None
    if any(layer.bias is not None for layer in layers):
        bias = _packed_bias(build, layers)
    product = emit_product(
        build,
        first.input,
        weight,
        bias,
        gemm=first.gemm,
        transposed=first.transposed,
        like=None,
    )
    outputs = [layer.output for layer in layers]
    parts = split_columns(site, build, product, widths, outputs)
    return dict(zip(outputs, parts, strict=True))


def split_columns(
    site: Site,
    build: Build,
    product: ir.Value,
    widths: list[int],
    outputs: Sequence[ir.Value | None],
) -> tuple[ir.Value, ...]:
    """Cut the last axis of `product` into parts like `outputs`, of so many columns each."""
    if site.opset < 13:
        return build.ops("Split", [product], {"axis": -1, "split": widths}, outputs=outputs)
    sizes = build.constant(np.array(widths, dtype=np.int64))
    return build.ops("Split", [product, sizes], {"axis": -1}, outputs=outputs)


def _packed_weight(build: Build, layers: tuple[Linear, ...]) -> ir.Value:
    first = layers[0]
    rows, columns = first.sizes[0], sum(layer.sizes[1] for layer in layers)
    axis = 0 if first.transposed else 1
    return build.weight(
        [layer.tensor for layer in layers],
        lambda *arrays: np.concatenate(arrays, axis=axis),
        dtype=first.tensor.dtype,
        shape=(columns, rows) if first.transposed else (rows, columns),
    )


def _packed_bias(build: Build, layers: tuple[Linear, ...]) -> ir.Value:
    dtype = layers[0].tensor.dtype
    widths = [layer.sizes[1] for layer in layers]
    has_bias = [layer.bias is not None for layer in layers]

    def pack(*arrays: Array) -> Array:
        given = iter(arrays)
        return np.concatenate(
            [
                wide_row(next(given), width) if has else np.zeros(width, arrays[0].dtype)
                for width, has in zip(widths, has_bias, strict=True)
            ]
        )

    sources = [known_tensor(layer.bias) for layer in layers if layer.bias is not None]
    return build.weight(sources, pack, dtype=dtype, shape=(sum(widths),))


RULES = (
    Rule(
        "packed-linear", ("MatMul", "Gemm"), _pattern, _check, _rewrite, NOT_PRIMITIVE, opset=OPSET
    ),
)
