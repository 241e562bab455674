"""GELU, written out, becomes one Gelu.

    erf form    y = 0.5*x*(1 + erf(x / sqrt(2)))                       Gelu(x)
    tanh form   y = 0.5*x*(1 + tanh(sqrt(2/pi)*(x + 0.044715*x^3)))    Gelu(x, approximate="tanh")
                  = x*sigmoid(2*sqrt(2/pi)*(x + 0.044715*x^3))         the same

ONNX Gelu-20; Hendrycks and Gimpel, "Gaussian Error Linear Units". Any association and any order
of the factors is the same polynomial in `x` and the function. Constants are compared within 1e-6,
in float16 within 2e-3 and in bfloat16 within 1.2e-2: what their rounding can add up to.

ONNX Runtime's own Gelu and FastGelu are the same kernels as the standard operator, so they serve
only where the opset cannot be raised to 20.
"""

from __future__ import annotations

import math

from leptonc.passes.fusions.activation.polynomial import (
    Activation,
    Polynomial,
    activations,
    same,
)
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.scalars import KERNEL_FLOATS, kept_dtype, read_outside
from leptonc.passes.rewriting.site import Site
from leptonc.passes.targets import CONTRIB

_OPSET = 20
_ANCHORS = ("Mul", "Div", "Add", "Sum")
_OUTER: Polynomial = {(1, 0): 0.5, (1, 1): 0.5}
_ERF: Polynomial = {(1, 0): math.sqrt(0.5)}
_SLOPE = math.sqrt(2 / math.pi)
_TANH: Polynomial = {(1, 0): _SLOPE, (3, 0): _SLOPE * 0.044715}

# For each function the polynomial around it and the one inside.
_FORMS: dict[str, tuple[Polynomial, Polynomial]] = {
    "Erf": (_OUTER, _ERF),
    "Tanh": (_OUTER, _TANH),
    # (1 + tanh(z)) / 2 is sigmoid(2z).
    "Sigmoid": ({(1, 1): 1.0}, {power: 2 * factor for power, factor in _TANH.items()}),
}


def _pattern(site: Site) -> Activation | None:
    for found in activations(site, *_FORMS):
        dtype = site.facts.dtype(found.x)
        outer, inner = _FORMS[found.function.op_type]
        if same(found.outer, outer, dtype) and same(found.inner, inner, dtype):
            return found
    return None


def _check(site: Site, match: Activation) -> str | None:
    return kept_dtype(site, match.x) or read_outside(site, match.nodes)


def _rewrite(site: Site, match: Activation, build: Build) -> Rewritten:
    output = site.node.outputs[0]
    exact = match.function.op_type == "Erf"
    attributes = {} if exact else {"approximate": "tanh"}
    return {output: build.op("Gelu", [match.x], attributes, like=output)}


def _check_old(site: Site, match: Activation) -> str | None:
    if match.function.op_type != "Erf" and not site.facts.rank(match.x):
        return f"FastGelu takes no scalar, and {match.x.name!r} may be one"
    return kept_dtype(site, match.x, KERNEL_FLOATS) or read_outside(site, match.nodes)


def _rewrite_old(site: Site, match: Activation, build: Build) -> Rewritten:
    output = site.node.outputs[0]
    operator = "Gelu" if match.function.op_type == "Erf" else "FastGelu"
    return {output: build.op(operator, [match.x], domain="com.microsoft", like=output)}


GELU_OLD_OPSET = Rule("gelu-ort", _ANCHORS, _pattern, _check_old, _rewrite_old, CONTRIB)
RULES = (
    Rule("gelu", _ANCHORS, _pattern, _check, _rewrite, opset=_OPSET),
    GELU_OLD_OPSET,
)
