"""A number that scales a product goes to the smaller of its factors.

    (A @ B) * s  ->  (A * s) @ B   or   A @ (B * s)
    (A @ B) / s  ->  (A / s) @ B   or   A @ (B / s)

For scores of attention, [B, H, S, S], from queries and keys of [B, H, S, D]: with D < S the
factor is applied to fewer elements. Only where all sizes are known to be numbers and an operand
is really smaller. ONNX Runtime's own product takes the factor itself (see linear_fused), and
engines that fuse attention look for it at the scores: so for `generic` only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.fusions.linear.read import FLOATS, OPSET
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site, commuted
from leptonc.passes.targets import GENERIC


@dataclass(frozen=True)
class Scores:
    """A product and the number that scales it."""

    product: ir.Node
    factor: ir.Value


def _pattern(site: Site) -> Scores | None:
    for value, factor in commuted(site.node):
        product = site.producer(value, "MatMul")
        rank = site.facts.rank(value)
        if product is None or rank is None or site.scalar(factor) is None:
            continue
        if (site.facts.rank(factor) or 0) == 0 and len(product.inputs) == 2:
            return Scores(product, factor)
    return None


def _check(site: Site, match: Scores) -> str | None:
    output = match.product.outputs[0]
    if site.facts.dtype(output) not in FLOATS:
        return f"{output.name!r} is no tensor of floating-point numbers"
    number = site.scalar(match.factor)
    if number is None or not 2.0**-40 <= abs(number) <= 2.0**40:
        return f"the factor {number} is 0, not finite, or of an extreme size"
    if _smaller(site, match.product) is None:
        return "no operand is known to be smaller than the product"
    return site.read_elsewhere(output, (site.node,))


def _smaller(site: Site, product: ir.Node) -> int | None:
    """Return which operand is the smallest, when it is smaller than the product."""
    sizes = [_count(site, value) for value in (*product.inputs, product.outputs[0])]
    best = min((0, 1), key=lambda index: sizes[index])
    return best if sizes[best] < sizes[2] < math.inf else None


def _count(site: Site, value: ir.Value | None) -> float:
    dims = site.facts.static(value)
    return math.inf if dims is None else math.prod(dims)


def _rewrite(site: Site, match: Scores, build: Build) -> Rewritten:
    index = _smaller(site, match.product) or 0
    inputs = list(match.product.inputs)
    inputs[index] = build.op(
        site.node.op_type, [inputs[index], match.factor], like=match.product.inputs[index]
    )
    output = site.node.outputs[0]
    return {output: build.op("MatMul", inputs, like=output)}


SCORES = Rule(
    name="scores-scale",
    anchors=("Mul", "Div"),
    pattern=_pattern,
    check=_check,
    rewrite=_rewrite,
    targets=frozenset({GENERIC}),
    opset=OPSET,
)

RULES = (SCORES,)
