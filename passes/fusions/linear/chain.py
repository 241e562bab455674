"""Linear layers that feed linear layers.

    (x @ W1 + b1) @ W2 + b2  ->  x @ (W1 @ W2) + (b1 @ W2 + b2)
    (x + c) @ W + b          ->  x @ W + (c @ W + b)              c a row of K

For W1 of shape [K, M] and W2 of [M, N] one row costs K*M + M*N products before and K*N after,
and the weights take as many numbers: the first rule is for K*N <= K*M + M*N only, so
not for the two thin matrices of a low-rank update, where the second rule still joins the
biases. The products of weights are summed in float64; those that would take minutes are not
made.

Weights in half precision are left alone: the product of two would be rounded once more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.fusions.linear.read import (
    OPSET,
    WIDE,
    Array,
    Linear,
    emit,
    emit_product,
    is_extended,
    is_row,
    known_tensor,
    read_linear,
    read_outside,
    wide_row,
)
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site, commuted

# Multiplications that the product of two weights may take: some seconds of one core.
_MOST_PRODUCTS = 1 << 34


@dataclass(frozen=True)
class Chain:
    """A layer whose input is a layer."""

    first: Linear
    second: Linear


def _chain_pattern(site: Site) -> Chain | None:
    second = read_linear(site, site.node.outputs[0])
    if second is None or second.nodes[-1] is not site.node or is_extended(site):
        return None
    first = read_linear(site, second.input)
    return None if first is None else Chain(first, second)


def _chain_check(site: Site, match: Chain) -> str | None:
    first, second = match.first, match.second
    dtype = first.tensor.dtype
    if dtype not in WIDE or second.tensor.dtype != dtype:
        return f"a weight of type {dtype.name} would be rounded once more"
    (k, m), n = first.sizes, second.sizes[1]
    if k * n > m * (k + n):
        return f"one product of {k} by {n} costs more than {k} by {m} and {m} by {n}"
    if k * m * n > _MOST_PRODUCTS:
        return f"the product of weights of {k} by {m} and {m} by {n} would take too long"
    reason = site.read_elsewhere(first.output, second.nodes)
    return reason or read_outside(site, first) or read_outside(site, second)


def _matrix(array: Array, layer: Linear) -> Array:
    return (array.T if layer.transposed else array).astype(np.float64)


def _chain_rewrite(site: Site, match: Chain, build: Build) -> Rewritten:
    del site
    first, second = match.first, match.second
    dtype = first.tensor.dtype
    (k, m), n = first.sizes, second.sizes[1]

    def multiply(one: Array, two: Array) -> Array:
        product: Array = _matrix(one, first) @ _matrix(two, second)
        return product.astype(one.dtype)

    weight = build.weight((first.tensor, second.tensor), multiply, dtype=dtype, shape=(k, n))
    bias = second.bias
    if first.bias is not None:
        bias = _moved_bias(build, first.bias, m, second)
    made = emit_product(
        build,
        first.input,
        weight,
        bias,
        gemm=first.gemm or second.gemm,
        like=second.output,
    )
    return {second.output: made}


def _moved_bias(build: Build, row: ir.Value, width: int, layer: Linear) -> ir.Value:
    """Make `row @ W + b` for the weight and bias of `layer`."""
    columns = layer.sizes[1]

    def move(before: Array, weight: Array, *after: Array) -> Array:
        moved = wide_row(before, width).astype(np.float64) @ _matrix(weight, layer)
        for bias in after:
            moved = moved + wide_row(bias, columns)
        return moved.astype(weight.dtype)

    sources = [known_tensor(row), layer.tensor]
    if layer.bias is not None:
        sources.append(known_tensor(layer.bias))
    return build.weight(sources, move, dtype=layer.tensor.dtype, shape=(columns,))


@dataclass(frozen=True)
class Shifted:
    """A layer with a bias whose input is the sum of `source` and the constant `row`."""

    layer: Linear
    add: ir.Node
    source: ir.Value
    row: ir.Value


def _shift_pattern(site: Site) -> Shifted | None:
    layer = read_linear(site, site.node.outputs[0])
    if layer is None or layer.nodes[-1] is not site.node or is_extended(site):
        return None
    add = site.producer(layer.input, "Add")
    if add is None or (layer.bias is None and not layer.gemm):
        return None
    for source, row in commuted(add):
        rank = site.facts.rank(source)
        if rank is not None and is_row(site, row, layer.sizes[0], rank):
            return Shifted(layer, add, source, row)
    return None


def _shift_check(site: Site, match: Shifted) -> str | None:
    dtype = match.layer.tensor.dtype
    if dtype not in WIDE:
        return f"a bias of type {dtype.name} would be rounded once more"
    dims = site.facts.dims(match.source)
    if dims is None or dims[-1] != match.layer.sizes[0]:
        return f"{match.source.name!r} may be widened by the constant"
    layer = match.layer
    if layer.add is not None:
        reason = site.read_elsewhere(layer.product.outputs[0], layer.nodes)
        if reason is not None:
            return reason
    return site.read_elsewhere(match.add.outputs[0], layer.nodes)


def _shift_rewrite(site: Site, match: Shifted, build: Build) -> Rewritten:
    del site
    layer = match.layer
    bias = _moved_bias(build, match.row, layer.sizes[0], layer)
    return {layer.output: emit(build, layer, match.source, layer.weight, bias)}


_ANCHORS = ("MatMul", "Gemm", "Add")

RULES = (
    Rule("linear-chain", _ANCHORS, _chain_pattern, _chain_check, _chain_rewrite, opset=OPSET),
    Rule("bias-linear", _ANCHORS, _shift_pattern, _shift_check, _shift_rewrite, opset=OPSET),
)
