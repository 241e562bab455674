"""HardSwish and HardSigmoid, written out.

    y = x * clip(x + 3, 0, 6) / 6  =  x * clip(x/6 + 1/2, 0, 1)   ->  HardSwish(x)
    y = x * HardSigmoid(x), alpha 1/6, beta 1/2                    ->  HardSwish(x)

ONNX HardSwish-14 (Howard et al., "Searching for MobileNetV3"). The clip may be a Clip, and its
bounds and the factors outside may be scaled together: with `c = clip(a*x + b, 0, h)` and
`y = k*x*c`, what has to hold is `k*a = 1/6`, `k*b = 1/2` and `k*h = 1`.
"""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.fusions.activation.polynomial import Activation, activations
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.scalars import is_near, kept_dtype, number, read_outside
from leptonc.passes.rewriting.site import Site

_LINE = {(1, 0), (0, 0)}


def _pattern(site: Site) -> Activation | None:
    for found in activations(site, "Clip", "HardSigmoid"):
        if found.outer.keys() != {(1, 1)}:
            continue
        line = _line(site, found)
        dtype = site.facts.dtype(found.x)
        expected = (1 / 6, 1 / 2, 1.0)
        factor = found.outer[(1, 1)]
        if line is not None and all(
            is_near(factor * part, wanted, dtype)
            for part, wanted in zip(line, expected, strict=True)
        ):
            return found
    return None


def _line(site: Site, found: Activation) -> tuple[float, float, float] | None:
    """Return the slope, the offset and the upper bound of what is clipped at 0."""
    node, inner = found.function, found.inner
    # x * HardSigmoid(x).
    if node.op_type == "HardSigmoid":
        slope, offset = (
            node.attributes.get_float("alpha", 0.2),
            node.attributes.get_float("beta", 0.5),
        )
        if not inner.keys() <= _LINE:
            return None
        return slope * inner.get((1, 0), 0.0), offset + slope * inner.get((0, 0), 0.0), 1.0
    # x * clip(a*x + b, 0, h).
    if len(node.inputs) != 3 or inner.keys() != _LINE:
        return None
    low, high = (number(site, value, found.x) for value in node.inputs[1:])
    if low != 0 or high is None:
        return None
    return inner[(1, 0)], inner[(0, 0)], high


def _check(site: Site, match: Activation) -> str | None:
    if site.facts.dtype(match.x) == ir.DataType.BFLOAT16 and site.opset < 22:
        return "HardSwish takes bfloat16 from opset 22 on"
    return kept_dtype(site, match.x) or read_outside(site, match.nodes)


def _rewrite(site: Site, match: Activation, build: Build) -> Rewritten:
    output = site.node.outputs[0]
    return {output: build.op("HardSwish", [match.x], like=output)}


RULES = (Rule("hard-swish", ("Mul", "Div"), _pattern, _check, _rewrite, opset=14),)
