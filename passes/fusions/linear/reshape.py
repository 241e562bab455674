"""Linear layers on rows that were flattened for Gemm go back to MatMul.

    Reshape(Gemm(Reshape(x, [M, K]), W, b), [.., N])      ->  MatMul(x, W) + b
    Reshape(MatMul(Reshape(x, [M, K]), W) + b, [.., N])   ->  MatMul(x, W) + b

Gemm takes rank 2 only, so exporters of `addmm` flatten `x` of shape [.., K] to rows and undo it
afterwards; others do so around MatMul. Each row is multiplied alone, so the flattening changes
nothing: the products are the same, and Gemm's bias is added after them instead of before.
    Reshape(layer(Reshape(x, [M, K])), shape)             ->  layer(Reshape(x, shape))

The last where K = N, so that `shape` fits before the layer as it does after it: the rows of
attention heads, which were joined and flattened in one Reshape.

The second Reshape must give back the dimensions of `x`, with N for K. That is known from numbers
where at most one dimension is open (the rest follows, the number of elements being the same),
and otherwise from sizes by name.

It saves a node and the shape arithmetic, at no cost in time (see `gemm`), and lets
the rules for attention see the layer in one form. A weight that is stored transposed for transB
is stored the other way round; one that somebody else reads too is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.onnx_inference import Dims
from leptonc.passes.fusions.linear.read import (
    OPSET,
    Linear,
    emit_product,
    read_linear,
    stored_twice,
)
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.scalars import read_outside
from leptonc.passes.rewriting.site import Site


@dataclass(frozen=True)
class Rows:
    """A linear layer between two Reshapes.

    Attributes:
        layer: The layer.
        source: `x` before it is flattened.
    """

    layer: Linear
    source: ir.Value


def _pattern(site: Site) -> Rows | None:
    layer = read_linear(site, site.input(0))
    if layer is None:
        return None
    flatten = site.producer(layer.input, "Reshape", "Flatten")
    if flatten is None or flatten.inputs[0] is None:
        return None
    return Rows(layer, flatten.inputs[0])


def _check(site: Site, match: Rows) -> str | None:
    layer, x = match.layer, match.source
    k, n = layer.sizes
    before, after = site.facts.dims(x), site.facts.dims(site.node.outputs[0])
    if before is None or len(before) < 2 or before[-1] != k:
        return f"the last dimension of {x.name!r} is not known to be {k}"
    if after is None or len(after) != len(before) or after[-1] != n:
        return f"{site.node.outputs[0].name!r} is not known to be as {x.name!r} with {n} columns"
    if not _same_rows(before, after):
        names = site.facts.symbolic(x), site.facts.symbolic(site.node.outputs[0])
        if names[0] is None or names[1] is None or names[0][:-1] != names[1][:-1]:
            return f"the Reshape is not known to give back the dimensions of {x.name!r}"
    if (site.facts.rank(layer.bias) or 0) > len(before):
        return "the bias has more dimensions than the input"
    reason = read_outside(site, layer.nodes)
    if reason is None and layer.transposed:
        reason = stored_twice(site, layer.weight, layer.nodes)
    return reason


def _same_rows(before: Dims, after: Dims) -> bool:
    """Whether all dimensions but the last are equal.

    The number of rows is. Without dimensions of size 0, one that is open is then equal as well.
    """
    pairs = list(zip(before[:-1], after[:-1], strict=True))
    open_pairs = [pair for pair in pairs if None in pair]
    if any(first != second for first, second in pairs if None not in (first, second)):
        return False
    known = [first for first, second in pairs if None not in (first, second)]
    return len(open_pairs) <= 1 and (not open_pairs or 0 not in known)


def _rewrite(site: Site, match: Rows, build: Build) -> Rewritten:
    return {site.node.outputs[0]: _matmul(site, match.layer, match.source, build)}


def _matmul(site: Site, layer: Linear, x: ir.Value, build: Build) -> ir.Value:
    weight = layer.weight
    if layer.transposed:
        weight = build.weight(
            (layer.tensor,), np.transpose, dtype=layer.tensor.dtype, shape=layer.sizes
        )
    return emit_product(build, x, weight, layer.bias, gemm=False, like=site.node.outputs[0])


def _move_check(site: Site, match: Rows) -> str | None:
    layer, output = match.layer, site.node.outputs[0]
    k, n = layer.sizes
    after = site.facts.dims(output)
    if k != n:
        return f"the Reshape of {n} columns is none of {k}"
    if after is None or len(after) < 2 or after[-1] != n:
        return f"the last dimension of {output.name!r} is not known to be {n}"
    if (site.facts.rank(layer.bias) or 0) > len(after):
        return "the bias has more dimensions than the output"
    if not site.node.attributes.get_int("allowzero", 0):
        # A 0 copies a dimension of the input, and that has others.
        shape = site.facts.content(site.input(1))
        if shape is None or any(size.number == 0 for size in shape):
            return "the Reshape may copy dimensions of its input"
    reason = read_outside(site, layer.nodes)
    flattened = layer.input
    reason = reason or site.read_elsewhere(flattened, (layer.product,))
    if reason is None and layer.transposed:
        reason = stored_twice(site, layer.weight, layer.nodes)
    return reason


def _move_rewrite(site: Site, match: Rows, build: Build) -> Rewritten:
    output = site.node.outputs[0]
    shaped = build.again(site.node, [match.source, site.input(1)], like=output)
    return {output: _matmul(site, match.layer, shaped, build)}


RULES = (
    Rule("reshape-gemm-reshape", ("Reshape",), _pattern, _check, _rewrite, opset=OPSET),
    Rule("gemm-reshape", ("Reshape",), _pattern, _move_check, _move_rewrite, opset=OPSET),
)
