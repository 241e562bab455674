"""Mish, written out, becomes one Mish.

    y = x * tanh(softplus(x))

ONNX Mish-18 (Misra, "Mish: A Self Regularized Non-Monotonic Activation Function"). ONNX Runtime
spells Mish out as the same nodes again, so it costs nothing there. A softplus that is written as
`log(1 + exp(x))` stays: it overflows where Softplus does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.build import Build
from leptonc.passes.fusions.scalars import kept_dtype, read_outside
from leptonc.passes.rule import GENERIC, ORT_CPU, ORT_CUDA, Rewritten, Rule
from leptonc.passes.site import Site, commuted


@dataclass(frozen=True)
class Mish:
    """What was found: the input, and the nodes between it and the anchor."""

    x: ir.Value
    nodes: tuple[ir.Node, ...]


def _pattern(site: Site) -> Mish | None:
    for x, gate in commuted(site.node):
        tanh = site.producer(gate, "Tanh")
        softplus = None if tanh is None else site.producer(tanh.inputs[0], "Softplus")
        if tanh is not None and softplus is not None and softplus.inputs[0] is x:
            return Mish(x, (tanh, softplus))
    return None


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
