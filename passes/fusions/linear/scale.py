"""Factors go into the weights of linear layers.

    (x @ W + b) * s      ->  x @ (W * s) + b * s          s a number, or a row of N
    (x @ W + b) / s      ->  x @ (W / s) + b / s
    (x * c) @ W + b      ->  x @ (diag(c) W) + b          c a number, or a row of K
    (Q @ K^T) * s        ->  (Q * s) @ K^T

and a number also through Reshape, Transpose, Squeeze, Unsqueeze and Identity, which move
elements and change none. So the scale of attention scores, [B, H, S, S], reaches the
projection of the queries or keys where there is one, and costs nothing there.

Weights in half precision are left alone: each element of the scaled weight would be rounded once
more. Factors that are 0, or not finite, or so large or small that a product with a weight may
leave the range of float32, are left alone, too; and so is a weight that somebody else reads,
which would be stored twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.fusions.linear.read import (
    OPSET,
    WIDE,
    Array,
    Linear,
    emit,
    is_row,
    known_tensor,
    plain_gemm,
    read_linear,
    read_outside,
    stored_twice,
    wide_row,
)
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site, commuted
from leptonc.passes.targets import GENERIC, ORT_CPU, ORT_CUDA, PRIMITIVE

# Nodes that move elements, and change none.
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity")

# The most nodes between a factor and the layer that takes it.
_FARTHEST = 8

# Sizes of factors whose product with a weight stays in the range of float32.
_SMALLEST, _LARGEST = 2.0**-40, 2.0**40


@dataclass(frozen=True)
class Scaled:
    """A factor, the nodes between, and the layer that takes it.

    Attributes:
        factor: The constant.
        divides: Whether it divides.
        path: The nodes between, each with the input that leads to the layer; the last first.
        layer: The layer.
    """

    factor: ir.Value
    divides: bool
    path: tuple[tuple[ir.Node, int], ...]
    layer: Linear


def _after_pattern(site: Site) -> Scaled | None:
    for value, factor in commuted(site.node):
        tensor = site.tensor(factor)
        rank = site.facts.rank(value)
        if tensor is None or (len(tensor.shape) > 0 and (rank is None or len(tensor.shape) > rank)):
            continue
        found = _path(site, value, _FARTHEST) if tensor.size == 1 else _next(site, value, factor)
        if found is not None:
            return Scaled(factor, site.node.op_type == "Div", *found)
    return None


_Path = tuple[tuple[tuple[ir.Node, int], ...], Linear]


def _next(site: Site, value: ir.Value, factor: ir.Value) -> _Path | None:
    layer = read_linear(site, value)
    rank = site.facts.rank(value)
    if layer is None or rank is None or not is_row(site, factor, layer.sizes[1], rank):
        return None
    return (), layer


def _path(site: Site, value: ir.Value, steps: int) -> _Path | None:
    """Walk back to a linear layer whose factor becomes one of `value`."""
    layer = read_linear(site, value)
    if layer is not None:
        return (), layer
    node = site.producer(value, "MatMul", *_MOVES)
    if node is None or not steps:
        return None
    for index in range(2 if node.op_type == "MatMul" else 1):
        source = node.inputs[index]
        found = None if source is None else _path(site, source, steps - 1)
        if found is not None:
            return ((node, index), *found[0]), found[1]
    return None


def _after_check(site: Site, match: Scaled) -> str | None:
    layer = match.layer
    reason = _unfit(match.factor, layer)
    if site.target == PRIMITIVE and any(node.op_type == "MatMul" for node, _ in match.path):
        return "the engine looks for the factor at the scores"
    reader = site.node
    for node, _ in match.path:
        reason = reason or _read_twice(site, node.outputs[0], reader)
        reader = node
    reason = reason or _read_twice(site, layer.output, reader)
    return reason or read_outside(site, layer)


def _read_twice(site: Site, value: ir.Value, reader: ir.Node) -> str | None:
    if len(value.uses()) > 1 and all(use.node is reader for use in value.uses()):
        return f"{value.name!r} is read twice by {reader.name!r}"
    return site.read_elsewhere(value, (reader,))


def _unfit(factor: ir.Value, layer: Linear) -> str | None:
    """Return why the weight may not be multiplied by `factor`, or None."""
    dtype = layer.tensor.dtype
    tensor = known_tensor(factor)
    if dtype not in WIDE or tensor.dtype != dtype:
        return f"a weight of type {dtype.name} would be rounded once more"
    sizes = np.abs(tensor.numpy().astype(np.float64))
    if not bool(np.all((sizes >= _SMALLEST) & (sizes <= _LARGEST))):
        return f"{factor.name!r} is 0, not finite, or of an extreme size"
    return None


def _after_rewrite(site: Site, match: Scaled, build: Build) -> Rewritten:
    layer = match.layer
    factor = known_tensor(match.factor)
    columns = layer.sizes[1]

    def scale(array: Array, by: Array) -> Array:
        row = by.reshape(-1, 1) if layer.transposed else by.reshape(-1)
        return array / row if match.divides else array * row

    def scale_row(array: Array, by: Array) -> Array:
        row = wide_row(array, columns)
        return row / by.reshape(-1) if match.divides else row * by.reshape(-1)

    tensor = layer.tensor
    weight = build.weight(
        (tensor, factor), scale, dtype=tensor.dtype, shape=tuple(tensor.shape.numpy())
    )
    bias = None
    if layer.bias is not None:
        source = known_tensor(layer.bias)
        bias = build.weight((source, factor), scale_row, dtype=source.dtype, shape=(columns,))
    value = emit(build, layer, layer.input, weight, bias)
    for node, index in reversed(match.path):
        value = _again(build, node, index, value)
    return {site.node.outputs[0]: value}


def _again(build: Build, node: ir.Node, index: int, value: ir.Value) -> ir.Value:
    """Make `node` with another input."""
    inputs = list(node.inputs)
    inputs[index] = value
    attributes: dict[str, Any] = {one.name: one.value for one in node.attributes.values()}
    return build.op(node.op_type, inputs, attributes, like=node.outputs[0])


@dataclass(frozen=True)
class Fed:
    """A layer whose input is scaled by the node `by`."""

    layer: Linear
    by: ir.Node
    source: ir.Value
    factor: ir.Value


def _before_pattern(site: Site) -> Fed | None:
    layer = _bare_product(site)
    by = None if layer is None else site.producer(layer.input, "Mul", "Div")
    if layer is None or by is None:
        return None
    for source, factor in commuted(by):
        rank = site.facts.rank(source)
        if rank is not None and is_row(site, factor, layer.sizes[0], rank):
            return Fed(layer, by, source, factor)
    return None


def _bare_product(site: Site) -> Linear | None:
    found = read_linear(site, site.node.outputs[0])
    return found if found is not None and found.product is site.node else None


def _before_check(site: Site, match: Fed) -> str | None:
    reason = _unfit(match.factor, match.layer)
    if reason is not None:
        return reason
    dims = site.facts.dims(match.source)
    if known_tensor(match.factor).size > 1 and (not dims or dims[-1] != match.layer.sizes[0]):
        return f"{match.source.name!r} may be widened by the factor"
    scaled = match.by.outputs[0]
    if scaled.is_graph_output():
        return f"{scaled.name!r} is an output of the graph"
    for use in scaled.uses():
        if not _takes_factor(site, use.node, scaled):
            return f"{scaled.name!r} is also read by {use.node.name!r}"
    return stored_twice(site, match.layer.weight, match.layer.nodes)


def _takes_factor(site: Site, node: ir.Node, value: ir.Value) -> bool:
    """Whether `node` is a layer that can take the factor of its input `value`, too."""
    if node.graph is not site.node.graph or node.domain:
        return False
    layer = _bare_product(site.at(node)) if node.op_type in {"MatMul", "Gemm"} else None
    if layer is None or layer.input is not value or (layer.gemm and not plain_gemm(node)):
        return False
    return layer.tensor.dtype in WIDE and stored_twice(site, layer.weight, layer.nodes) is None


def _before_rewrite(site: Site, match: Fed, build: Build) -> Rewritten:
    layer, tensor = match.layer, match.layer.tensor
    divides = match.by.op_type == "Div"

    def scale(array: Array, by: Array) -> Array:
        row = by.reshape(-1) if layer.transposed else by.reshape(-1, 1)
        return array / row if divides else array * row

    weight = build.weight(
        (tensor, known_tensor(match.factor)),
        scale,
        dtype=tensor.dtype,
        shape=tuple(tensor.shape.numpy()),
    )
    made = emit(build, layer, match.source, weight, layer.bias)
    return {site.node.outputs[0]: made}


AFTER = Rule(
    name="linear-scale",
    anchors=("Mul", "Div"),
    pattern=_after_pattern,
    check=_after_check,
    rewrite=_after_rewrite,
    opset=OPSET,
)

BEFORE = Rule(
    name="scale-linear",
    anchors=("MatMul", "Gemm"),
    pattern=_before_pattern,
    check=_before_check,
    rewrite=_before_rewrite,
    # The factor is as a rule that of a normalisation, which `primitive` leaves to the engine.
    targets=frozenset({GENERIC, ORT_CPU, ORT_CUDA}),
    opset=OPSET,
)

RULES = (AFTER, BEFORE)
