"""ONNX Runtime's own products: FusedMatMul and FusedGemm (domain com.microsoft).

    MatMul(A^T, B), MatMul(A, B^T)     ->  FusedMatMul(A, B, transA or transB)
    MatMul(A, B) * s, / s              ->  FusedMatMul(A, B, alpha = s or 1 / s)
    MatMul(A * s, B), MatMul(A, B * s) ->  FusedMatMul(A, B, alpha = s)
    activation(Gemm(A, B, C))          ->  FusedGemm(A, B, C, activation)

A^T exchanges the last two of two and more dimensions. FusedMatMul takes as long as MatMul (1.01
at BERT-base shapes, batch 8, a tie) and leaves out a pass over the tensor. On a CPU
they exist for float32 only, and FusedGemm on a CPU only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from leptonc.passes.fusions.linear.read import OPSET, extreme
from leptonc.passes.rewriting.build import Build, attributes_of
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import IN_INTEGERS, Site, commuted
from leptonc.passes.targets import CONTRIB, ORT_CPU

_MICROSOFT = "com.microsoft"
_PRODUCTS = ("MatMul", "com.microsoft.FusedMatMul")

_CPU_TYPES = frozenset({ir.DataType.FLOAT})
_CUDA_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})

# The activations of FusedGemm, with the attributes and defaults that become its own.
_ACTIVATIONS: dict[str, tuple[tuple[str, float], ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "Softplus": (),
    "Softsign": (),
    "LeakyRelu": (("alpha", 0.01),),
    "Elu": (("alpha", 1.0),),
    "Celu": (("alpha", 1.0),),
    "ThresholdedRelu": (("alpha", 1.0),),
    "HardSigmoid": (("alpha", 0.2), ("beta", 0.5)),
}


def _unfit(site: Site, product: ir.Node) -> str | None:
    """Return why `product` cannot be a FusedMatMul, or None."""
    if site.is_quantized(product):
        return IN_INTEGERS
    types = _CPU_TYPES if site.target == ORT_CPU else _CUDA_TYPES
    dtype = site.facts.dtype(product.inputs[0])
    if dtype not in types:
        return f"FusedMatMul takes no elements of type {dtype.name if dtype else 'unknown'}"
    if any((site.facts.rank(value) or 0) < 2 for value in product.inputs):
        return "FusedMatMul takes two and more dimensions"
    if any(product.attributes.get_int(name, 0) for name in ("transBatchA", "transBatchB")):
        return "its batch dimensions are transposed already"
    return None


@dataclass(frozen=True)
class Turned:
    """The operand of a product that is a Transpose."""

    index: int
    turn: ir.Node
    source: ir.Value


def _turned_pattern(site: Site) -> Turned | None:
    if len(site.node.inputs) != 2 or None in site.node.inputs:
        return None
    for index, value in enumerate(site.node.inputs):
        turn = site.producer(value, "Transpose")
        if turn is None or turn.inputs[0] is None:
            continue
        rank = site.facts.rank(turn.inputs[0])
        if rank is not None and rank >= 2 and _swaps_last(site.at(turn), rank):
            return Turned(index, turn, turn.inputs[0])
    return None


def _swaps_last(site: Site, rank: int) -> bool:
    perm = site.attribute_ints("perm")
    if perm is None:
        return rank == 2
    return perm == (*range(rank - 2), rank - 1, rank - 2)


def _turned_check(site: Site, match: Turned) -> str | None:
    reason = _unfit(site, site.node)
    return reason or site.read_elsewhere(match.turn.outputs[0], (site.node,))


def _turned_rewrite(site: Site, match: Turned, build: Build) -> Rewritten:
    inputs, attributes = list(site.node.inputs), attributes_of(site.node)
    inputs[match.index] = match.source
    name = ("transA", "transB")[match.index]
    attributes[name] = 0 if attributes.get(name, 0) else 1
    output = site.node.outputs[0]
    made = build.op("FusedMatMul", inputs, attributes, domain=_MICROSOFT, like=output)
    return {output: made}


@dataclass(frozen=True)
class Scaled:
    """A product with a factor.

    Attributes:
        product: The MatMul or FusedMatMul.
        inputs: What it multiplies, without the factor.
        scale: The Mul or Div.
        factor: The number.
    """

    product: ir.Node
    inputs: tuple[ir.Value, ir.Value]
    scale: ir.Node
    factor: float


def _factor(site: Site, scale: ir.Node, value: ir.Value, by: ir.Value) -> float | None:
    """Return the number that `value` is scaled by, when its shape stays as it is."""
    number, rank = site.scalar(by), site.facts.rank(value)
    by_rank = site.facts.rank(by)
    if number is None or rank is None or by_rank is None or by_rank > rank:
        return None
    if scale.op_type == "Mul":
        return number
    return 1.0 / number if number else math.inf


def _after_pattern(site: Site) -> Scaled | None:
    for value, by in commuted(site.node):
        product = site.producer(value, *_PRODUCTS)
        factor = _factor(site, site.node, value, by)
        for inputs in commuted(product):
            if product is not None and factor is not None:
                return Scaled(product, inputs, site.node, factor)
    return None


def _before_pattern(site: Site) -> Scaled | None:
    for left, right in commuted(site.node):
        for index, value in enumerate((left, right)):
            scale = site.producer(value, "Mul", "Div")
            for source, by in commuted(scale):
                factor = None if scale is None else _factor(site, scale, source, by)
                if scale is not None and factor is not None:
                    inputs = (source, right) if index == 0 else (left, source)
                    return Scaled(site.node, inputs, scale, factor)
    return None


def _scaled_check(site: Site, match: Scaled) -> str | None:
    inner = match.product if match.scale is site.node else match.scale
    reason = _unfit(site, match.product) or extreme(match.factor)
    return reason or site.read_elsewhere(inner.outputs[0], (site.node,))


def _scaled_rewrite(site: Site, match: Scaled, build: Build) -> Rewritten:
    attributes = attributes_of(match.product)
    attributes["alpha"] = float(attributes.get("alpha", 1.0)) * match.factor
    output = site.node.outputs[0]
    made = build.op("FusedMatMul", list(match.inputs), attributes, domain=_MICROSOFT, like=output)
    return {output: made}


def _activation_pattern(site: Site) -> ir.Node | None:
    return site.producer(site.input(0), "Gemm")


def _activation_check(site: Site, gemm: ir.Node) -> str | None:
    if site.is_quantized(gemm):
        return IN_INTEGERS
    dtype = site.facts.dtype(gemm.outputs[0])
    if dtype not in _CPU_TYPES:
        return f"FusedGemm takes no elements of type {dtype.name if dtype else 'unknown'}"
    return site.read_elsewhere(gemm.outputs[0], (site.node,))


def _activation_rewrite(site: Site, gemm: ir.Node, build: Build) -> Rewritten:
    node = site.node
    attributes: dict[str, Any] = {**attributes_of(gemm), "activation": node.op_type}
    for name, default in _ACTIVATIONS[node.op_type]:
        attributes[f"activation_{name}"] = node.attributes.get_float(name, default)
    output = node.outputs[0]
    made = build.op("FusedGemm", list(gemm.inputs), attributes, domain=_MICROSOFT, like=output)
    return {output: made}


RULES = (
    Rule(
        "fused-matmul-transpose",
        _PRODUCTS,
        _turned_pattern,
        _turned_check,
        _turned_rewrite,
        CONTRIB,
        opset=OPSET,
    ),
    Rule(
        "fused-matmul-scale",
        ("Mul", "Div"),
        _after_pattern,
        _scaled_check,
        _scaled_rewrite,
        CONTRIB,
        opset=OPSET,
    ),
    Rule(
        "scale-fused-matmul",
        _PRODUCTS,
        _before_pattern,
        _scaled_check,
        _scaled_rewrite,
        CONTRIB,
        opset=OPSET,
    ),
    Rule(
        "gemm-activation",
        tuple(_ACTIVATIONS),
        _activation_pattern,
        _activation_check,
        _activation_rewrite,
        frozenset({ORT_CPU}),
        opset=OPSET,
    ),
)
