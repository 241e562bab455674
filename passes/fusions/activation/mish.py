"""Mish, written out, becomes one Mish.

    y = x * tanh(softplus(x))        or with where(x > t, x, softplus(x)) for softplus(x), t >= 10

ONNX Mish-18 (Misra, "Mish: A Self Regularized Non-Monotonic Activation Function"). ONNX Runtime
spells Mish out as the same nodes again, so it costs nothing there. A softplus that is written as
`log(1 + exp(x))` stays: it overflows where Softplus does not. Above 10, tanh of x and tanh of
softplus(x) are both 1 in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.scalars import kept_dtype, number, read_outside
from leptonc.passes.rewriting.site import Site, commuted
from leptonc.passes.targets import GENERIC, ORT_CPU, ORT_CUDA

# From here on tanh is 1 in float32.
_SATURATED = 10.0


@dataclass(frozen=True)
class Mish:
    """What was found: the input, and the nodes between it and the anchor."""

    x: ir.Value
    nodes: tuple[ir.Node, ...]


def _pattern(site: Site) -> Mish | None:
    for x, gate in commuted(site.node):
        tanh = site.producer(gate, "Tanh")
        inner = None if tanh is None else _softplus(site, tanh.inputs[0], x)
        if tanh is not None and inner is not None:
            return Mish(x, (tanh, *inner))
    return None


def _softplus(site: Site, value: ir.Value | None, x: ir.Value) -> tuple[ir.Node, ...] | None:
    """Return the nodes that compute the softplus of `x`, or None when `value` is not that."""
    node = site.producer(value, "Softplus", "Where")
    if node is None:
        return None
    if node.op_type == "Softplus":
        return (node,) if node.inputs[0] is x else None
    above = site.producer(node.inputs[0], "Greater")
    if above is None or above.inputs[0] is not x or node.inputs[1] is not x:
        return None
    threshold, below = number(site, above.inputs[1], x), site.producer(node.inputs[2], "Softplus")
    if threshold is None or threshold < _SATURATED or below is None or below.inputs[0] is not x:
        return None
    return (node, above, below)


def _check(site: Site, match: Mish) -> str | None:
    return kept_dtype(site, match.x) or read_outside(site, match.nodes)


def _rewrite(site: Site, match: Mish, build: Build) -> Rewritten:
    output = site.node.outputs[0]
    return {output: build.op("Mish", [match.x], like=output)}


RULES = (
    Rule(
        "mish",
        ("Mul",),
        _pattern,
        _check,
        _rewrite,
        targets=frozenset({GENERIC, ORT_CPU, ORT_CUDA}),
        opset=18,
    ),
)
