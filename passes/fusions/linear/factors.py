"""The factors of Gemm.

    alpha * A @ B + beta * C  ->  A @ (alpha * B) + (beta * C)      B, C constants
    0 * C                     ->  no C                               C constant and finite
    A @ B + 0                 ->  A @ B                              C a constant row of zeros

A Gemm without factors is a linear layer, which the other rules know. Weights in half precision
keep their factors: each element would be rounded once more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.fusions.linear.read import OPSET, WIDE, is_row, known_tensor, stored_twice
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site


@dataclass(frozen=True)
class Factors:
    """The factors of a Gemm that has some."""

    alpha: float
    beta: float
    bias: ir.Value | None


def _pattern(site: Site) -> Factors | None:
    attributes = site.node.attributes
    alpha, beta = attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)
    bias = site.input(2)
    if alpha is None or beta is None or (alpha == 1.0 and (bias is None or beta == 1.0)):
        return None
    return Factors(alpha, 1.0 if bias is None else beta, bias)


def _check(site: Site, match: Factors) -> str | None:
    weight = site.input(1)
    if match.alpha != 1.0:
        tensor = site.tensor(weight)
        if tensor is None or weight is None:
            return "the matrix is no constant"
        reason = _unfit(site, weight, match.alpha)
        if reason is not None:
            return reason
    if match.beta == 1.0 or match.bias is None:
        return None
    if site.tensor(match.bias) is None:
        return "the bias is no constant"
    if match.beta == 0.0:
        finite = bool(np.all(np.isfinite(known_tensor(match.bias).numpy())))
        return None if finite else "the bias is not finite"
    return _unfit(site, match.bias, match.beta)


def _unfit(site: Site, value: ir.Value, factor: float) -> str | None:
    dtype = known_tensor(value).dtype
    if dtype not in WIDE:
        return f"a weight of type {dtype.name} would be rounded once more"
    if not 2.0**-40 <= abs(factor) <= 2.0**40:
        return f"the factor {factor} is 0, not finite, or of an extreme size"
    return stored_twice(site, value, (site.node,))


def _rewrite(site: Site, match: Factors, build: Build) -> Rewritten:
    a, b = site.node.inputs[:2]
    assert b is not None
    if match.alpha != 1.0:
        b = _times(build, b, match.alpha)
    inputs = [a, b]
    if match.bias is not None and match.beta != 0.0:
        bias = match.bias
        inputs.append(bias if match.beta == 1.0 else _times(build, bias, match.beta))
    names = ("transA", "transB")
    turns = {name: 1 for name in names if site.node.attributes.get_int(name, 0)}
    output = site.node.outputs[0]
    return {output: build.op("Gemm", inputs, turns, like=output)}


def _times(build: Build, value: ir.Value, factor: float) -> ir.Value:
    tensor = known_tensor(value)
    return build.weight(
        (tensor,),
        lambda array: array * array.dtype.type(factor),
        dtype=tensor.dtype,
        shape=tuple(tensor.shape.numpy()),
    )


def _zeros_pattern(site: Site) -> ir.Value | None:
    bias = site.input(2)
    dims = site.facts.dims(site.input(1))
    if bias is None or dims is None or len(dims) != 2:
        return None
    columns = dims[0] if site.node.attributes.get_int("transB", 0) else dims[1]
    if columns is None or not is_row(site, bias, columns, 2):
        return None
    return None if np.any(known_tensor(bias).numpy()) else bias


def _zeros_rewrite(site: Site, bias: ir.Value, build: Build) -> Rewritten:
    del bias
    output = site.node.outputs[0]
    attributes = {one.name: one.value for one in site.node.attributes.values()}
    attributes.pop("beta", None)
    return {output: build.op("Gemm", list(site.node.inputs[:2]), attributes, like=output)}


FACTORS = Rule(
    name="gemm-factors",
    anchors=("Gemm",),
    pattern=_pattern,
    check=_check,
    rewrite=_rewrite,
    opset=OPSET,
)

ZEROS = Rule(
    name="gemm-zeros",
    anchors=("Gemm",),
    pattern=_zeros_pattern,
    check=None,
    rewrite=_zeros_rewrite,
    opset=OPSET,
)

RULES = (FACTORS, ZEROS)
