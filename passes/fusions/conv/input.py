"""A BatchNormalization before a convolution or a linear layer, in its weights.

With s and t per input channel as in `affine`, and W_c the part of W for channel c:

    Conv(s*x + t, W) + b  =  Conv(x, s*W) + (b + sum over c and positions of t_c * W_c)

Only without padding: padding puts zeros where the shift would have put t. Computed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.fusions.conv.affine import batch_norm_terms, training_obstacle
from leptonc.passes.fusions.conv.pads import own_pads
from leptonc.passes.graph.constants import constant
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Before:
    """A BatchNormalization and its terms, `[C]` each."""

    norm: ir.Node
    scale: Array
    shift: Array


def _pattern(site: Site) -> Before | None:
    norm = site.producer(site.input(0), "BatchNormalization")
    terms = None if norm is None else batch_norm_terms(site.at(norm))
    return None if norm is None or terms is None else Before(norm, *terms)


def _check(site: Site, match: Before) -> str | None:
    weight, bias = constant(site.input(1)), site.input(2)
    reason = training_obstacle(site.at(match.norm))
    if reason is not None:
        return reason
    if weight is None or weight.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        return "the weight is no constant of a float type"
    if bias is not None and constant(bias) is None:
        return "the bias is no constant"
    spatial = len(weight.shape) - 2
    pads = own_pads(site, spatial)
    if pads is None or any(pads):
        return "the convolution pads"
    groups = site.node.attributes.get_int("group", 1)
    if int(weight.shape.numpy()[1]) * groups != match.scale.size:
        return "there is not one number per input channel"
    if not (np.isfinite(match.scale).all() and np.isfinite(match.shift).all()):
        return "a scale or a shift is not finite"
    value = site.input(1)
    if value is not None and (len(value.uses()) > 1 or value.is_graph_output()):
        return "the weight is read by another node"
    return site.read_elsewhere(match.norm.outputs[0], (site.node,))


def _rewrite(site: Site, match: Before, build: Build) -> Rewritten:
    node, out = site.node, site.node.outputs[0]
    weight, old = constant(site.input(1)), constant(site.input(2))
    assert weight is not None
    groups = node.attributes.get_int("group", 1)
    shape = tuple(int(size) for size in weight.shape.numpy())
    scale = _by_row(match.scale, shape, groups)
    shift = _by_row(match.shift, shape, groups)
    dtype = weight.numpy().dtype
    bias = np.zeros(shape[0]) if old is None else old.numpy().astype(np.float64)
    bias = bias + (weight.numpy() * shift).reshape(shape[0], -1).sum(axis=1)

    def compute(array: Array) -> Array:
        product: Array = (array.astype(np.float64) * scale).astype(array.dtype)
        return product

    scaled = build.weight([weight], compute, dtype=weight.dtype, shape=shape, stem="weight")
    inputs = [match.norm.inputs[0], scaled, build.constant(bias.astype(dtype), "bias")]
    return {out: build.again(node, inputs, like=out)}


def _by_row(numbers: Array, shape: tuple[int, ...], groups: int) -> Array:
    """Return the numbers of the input channels that each output channel reads, `[M, C/g, 1...]`."""
    rows = numbers.reshape(groups, shape[1]).repeat(shape[0] // groups, axis=0)
    return rows.reshape(shape[0], shape[1], *(1,) * (len(shape) - 2))


RULES = (Rule("batch-norm-conv", ("Conv",), _pattern, _check, _rewrite),)
