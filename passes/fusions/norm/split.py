"""Layer normalisation whose scale is taken into the deviation first, as TensorFlow writes it.

With m the mean over the last axes, e a small constant, and v = m((x - m)^2):

    r = w / sqrt(v + e)        x*r + (b - m*r)  ->  LayerNormalization(x, 1) * w + b

for `x*r + b - m*r = (x - m)*r + b`. Where w is left out, r is the reciprocal root itself. Scale
and bias are taken in by the rules of `norm_affine`.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.fusions.norm.core import (
    Normalised,
    last_axes_check,
    trailing_sizes,
    unscaled_norm,
)
from leptonc.passes.fusions.norm.parts import broadcasts, centred, deviation, mean_axes
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site, commuted


@dataclass(frozen=True)
class Split:
    """The pieces.

    Attributes:
        core: The normalisation without scale and bias.
        scale: w, or None.
        bias: b.
    """

    core: Normalised
    scale: ir.Value | None
    bias: ir.Value


def _pattern(site: Site) -> Split | None:
    for left, right in commuted(site.node):
        product, rest = site.producer(left, "Mul"), site.producer(right, "Sub")
        if product is None or rest is None or not commuted(rest):
            continue
        bias, shift = commuted(rest)[0]
        shifted = site.producer(shift, "Mul")
        if shifted is None:
            continue
        for source, root in commuted(product):
            for mean, other in commuted(shifted):
                found = _read(site, source, root, mean) if other is root else None
                if found is not None:
                    core, scale = found
                    inner = tuple(dict.fromkeys((*core.inner, product, rest, shifted)))
                    whole = Normalised(core.source, None, core.axes, core.epsilon, inner)
                    return Split(whole, scale, bias)
    return None


def _read(
    site: Site, source: ir.Value, root: ir.Value, mean: ir.Value
) -> tuple[Normalised, ir.Value | None] | None:
    """Read `root` as the scaled reciprocal deviation of `source`, whose mean is `mean`."""
    node = site.producer(root, "Mul")
    options: list[tuple[ir.Value, ir.Value | None]] = [(root, None)]
    options += [(inner, scale) for inner, scale in commuted(node)]
    for inner, scale in options:
        below = deviation(site, inner, -0.5)
        if below is None:
            continue
        difference = centred(site, below.squared, below.axes)
        average = site.producer(mean, "ReduceMean")
        if difference is None or difference.source is not source or average is None:
            continue
        if average.inputs[0] is not source or mean_axes(site, average) != below.axes:
            continue
        nodes = (*below.nodes, *difference.nodes, average, *((node,) if scale and node else ()))
        return Normalised(source, None, below.axes, below.epsilon, nodes), scale
    return None


def _check(site: Site, match: Split) -> str | None:
    sizes = trailing_sizes(site, match.core)
    for weight in (match.scale, match.bias):
        own = () if weight is None else site.facts.static(weight)
        if own is None or sizes is None or not broadcasts(own, sizes, len(sizes)):
            return "scale and bias are not known to be of the shape of the last axes"
    return last_axes_check(site, match.core)


def _rewrite(site: Site, match: Split, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    made = unscaled_norm(site, match.core, build, "LayerNormalization")
    if match.scale is not None:
        made = build.op("Mul", [made, match.scale], like=out)
    return {out: build.op("Add", [made, match.bias], like=out)}


RULES = (Rule("layer-norm-split", ("Add",), _pattern, _check, _rewrite, opset=17),)
