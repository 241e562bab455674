"""Linear layers on rows that were flattened for Gemm go back to MatMul.

    Reshape(Gemm(Reshape(x, [M, K]), W, b), [.., N])      ->  MatMul(x, W) + b
    Reshape(MatMul(Reshape(x, [M, K]), W) + b, [.., N])   ->  MatMul(x, W) + b

Gemm takes rank 2 only, so exporters of `addmm` flatten `x` of shape [.., K] to rows and undo it
afterwards; others do so around MatMul. Each row is multiplied alone, so the flattening changes
nothing: the products are the same, and Gemm's bias is added after them instead of before.
    Reshape(layer(Reshape(x, [M, K])), shape)             ->  layer(Reshape(x, shape))   K = N

The second Reshape must give back the dimensions of `x`, with N for K. That is known from numbers
where at most one dimension is open (the rest follows, the number of elements being the same),
and otherwise from sizes by name.

It saves a node and the shape arithmetic, at no cost in time (see linear_gemm), and lets
the rules for attention see the layer in one form. A weight that is stored transposed for transB
is stored the other way round; one that somebody else reads too is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.build import Build
from leptonc.passes.facts import Dims
from leptonc.passes.fusions.linear_read import (
    OPSET,
    Linear,
    emit_product,
    read_linear,
    stored_twice,
)
from leptonc.passes.rule import Rewritten, Rule
from leptonc.passes.site import Site

# The dimensions of a value by name: equal entries are equal sizes.
ByName = Callable[[ir.Value], tuple[Any, ...] | None]


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


def _check(site: Site, match: Rows, by_name: ByName) -> str | None:
    layer, x = match.layer, match.source
    k, n = layer.sizes
    before, after = site.facts.dims(x), site.facts.dims(site.node.outputs[0])
    if before is None or len(before) < 2 or before[-1] != k:
        return f"the last dimension of {x.name!r} is not known to be {k}"
    if after is None or len(after) != len(before) or after[-1] != n:
        return f"{site.node.outputs[0].name!r} is not known to be as {x.name!r} with {n} columns"
    if not _same_rows(before, after):
        names = by_name(x), by_name(site.node.outputs[0])
        if names[0] is None or names[1] is None or names[0][:-1] != names[1][:-1]:
            return f"the Reshape is not known to give back the dimensions of {x.name!r}"
    if (site.facts.rank(layer.bias) or 0) > len(before):
        return "the bias has more dimensions than the input"
    inside = (*layer.nodes, site.node)
    reason = None
    for node in layer.nodes:
        reason = reason or site.read_elsewhere(node.outputs[0], inside)
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
    layer = match.layer
    weight = layer.weight
    if layer.transposed:
        weight = build.weight(
            (layer.tensor,), np.transpose, dtype=layer.tensor.dtype, shape=layer.sizes
        )
    output = site.node.outputs[0]
    made = emit_product(build, match.source, weight, layer.bias, gemm=False, like=output)
    return {output: made}


def reshape_gemm(by_name: ByName) -> Rule[Rows]:
    """Return the rule for a model.

    Args:
        by_name: Its dimensions by name, where they are known.
    """
    return Rule(
        name="reshape-gemm-reshape",
        anchors=("Reshape",),
        pattern=_pattern,
        check=lambda site, match: _check(site, match, by_name),
        rewrite=_rewrite,
        opset=OPSET,
    )
