"""Normalisation written in primitive operators.

With m the mean over trailing axes, e a small constant, and v = m(c^2):

    c = x - m(x):   c / sqrt(v + e)   ->  LayerNormalization(x, 1)       (Ba et al., 2016)
    c = x:          c / sqrt(v + e)   ->  RMSNormalization(x, 1)         (Zhang, Sennrich, 2019)

c^2 is Pow(c, 2) or Mul(c, c). The division is Div by Sqrt, or Mul by the Reciprocal of it, or a
Pow by 0.5 or -0.5. The difference may be computed twice, and the deviation in a wider type. A
scale may be multiplied in before the division. Scale and bias that follow are taken in by the
rules of `affine`.

Over all axes after `[N, C]` the first form is InstanceNormalization too, whose scale is per
channel. It is chosen where there are two such axes or more, unless a scale of their shape
follows; and over one axis, where a scale per channel follows.

ONNX Runtime runs RMSNormalization in 0.3 to 0.5 of the time of the primitive form on a CPU, with
the same kernel as its own SimplifiedLayerNormalization, which serves where the opset cannot be
raised. Engines that fuse it by themselves keep the primitive form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.onnx_inference import Dims
from leptonc.passes.fusions.norm.parts import Nodes, centred, deviation, uncast
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.scalars import read_outside
from leptonc.passes.rewriting.site import Site, commuted
from leptonc.passes.targets import CONTRIB, NOT_PRIMITIVE

FLOATS = {
    ir.DataType.FLOAT: np.float32,
    ir.DataType.FLOAT16: np.float16,
}


@dataclass(frozen=True)
class Normalised:
    """A value divided by its deviation.

    Attributes:
        source: x.
        scale: What it was multiplied by before the division, or None.
        axes: What the mean is over, from 0 and sorted.
        epsilon: e, or None where nothing is added under the root.
        inner: Every node that goes, but the anchor.
    """

    source: ir.Value
    scale: ir.Value | None
    axes: tuple[int, ...]
    epsilon: float | None
    inner: Nodes


def _normalised(*, centre: bool) -> Callable[[Site], Normalised | None]:
    def pattern(site: Site) -> Normalised | None:
        exponent = -0.5 if site.node.op_type == "Mul" else 0.5
        for top, root in commuted(site.node):
            below = deviation(site, root, exponent)
            if below is None:
                continue
            direct = Normalised(top, None, below.axes, below.epsilon, below.nodes)
            for found in (direct, *_scaled_tops(site, direct)):
                matched = _with_source(site, found, below.squared, centre)
                if matched is not None:
                    return matched
        return None

    return pattern


def _scaled_tops(site: Site, direct: Normalised) -> list[Normalised]:
    """Read what is divided as a product with a scale."""
    node = site.producer(direct.source, "Mul")
    return [
        Normalised(top, scale, direct.axes, direct.epsilon, (*direct.inner, node))
        for top, scale in commuted(node)
        if node is not None
    ]


def _with_source(
    site: Site, found: Normalised, squared: ir.Value, centre: bool
) -> Normalised | None:
    """Find x, from what is divided and what is squared, which must be the same."""
    wide = uncast(site, squared)
    nodes = found.inner
    if squared is not found.source:
        squared, nodes = (wide.source, (*nodes, *wide.nodes)) if wide.nodes else (squared, nodes)
    # c = x.
    if not centre:
        if squared is not found.source or centred(site, squared, found.axes) is not None:
            return None
        return Normalised(squared, found.scale, found.axes, found.epsilon, nodes)
    # c = x - m(x).
    top, again = centred(site, found.source, found.axes), centred(site, squared, found.axes)
    if top is None or again is None or top.source is not again.source:
        return None
    inner = tuple(dict.fromkeys((*nodes, *top.nodes, *again.nodes)))
    return Normalised(top.source, found.scale, found.axes, found.epsilon, inner)


def trailing_sizes(site: Site, match: Normalised) -> tuple[int, ...] | None:
    """Return the sizes of the axes, where they are the last ones and known."""
    dims = site.facts.dims(match.source)
    if dims is None or match.axes != tuple(range(match.axes[0], len(dims))):
        return None
    sizes = tuple(size for size in dims[match.axes[0] :] if size is not None)
    return sizes if len(sizes) == len(match.axes) else None


def _obstacle(site: Site, match: Normalised) -> str | None:
    if match.epsilon is None:
        return "nothing is added under the root, and a kernel makes NaN of equal elements"
    if site.facts.dtype(match.source) not in FLOATS:
        return "the element type is not float32 or float16"
    return read_outside(site, match.inner)


def last_axes_check(site: Site, match: Normalised) -> str | None:
    """Return why the match is no normalisation over the last axes."""
    if trailing_sizes(site, match) is None:
        return "the mean is not known to be over the last axes, of known sizes"
    return _obstacle(site, match)


def _emit(operator: str) -> Callable[[Site, Normalised, Build], Rewritten]:
    def rewrite(site: Site, match: Normalised, build: Build) -> Rewritten:
        return _scaled(site, match, build, unscaled_norm(site, match, build, operator))

    return rewrite


def unscaled_norm(site: Site, match: Normalised, build: Build, operator: str) -> ir.Value:
    """Make the normalisation with a scale of ones."""
    sizes, dtype = trailing_sizes(site, match), site.facts.dtype(match.source)
    assert sizes is not None
    assert dtype is not None
    ones = build.constant(np.ones(sizes, FLOATS[dtype]), "norm_scale")
    attributes = {"axis": -len(sizes), "epsilon": match.epsilon or 0.0, "stash_type": 1}
    return build.op(operator, [match.source, ones], attributes, like=match.source)


def _out(site: Site) -> ir.Value:
    return site.node.outputs[0]


def _scaled(site: Site, match: Normalised, build: Build, made: ir.Value) -> Rewritten:
    """Multiply by the scale that came before the division."""
    if match.scale is None:
        return {_out(site): made}
    return {_out(site): build.op("Mul", [made, match.scale], like=_out(site))}


def _per_instance(site: Site) -> Normalised | None:
    """Match a normalisation over all axes after the channels that has a scale per channel."""
    found = _normalised(centre=True)(site)
    dims = None if found is None else site.facts.dims(found.source)
    if found is None or dims is None or found.axes != tuple(range(2, len(dims))):
        return None
    return found if _reads_channels(site, dims, trailing_sizes(site, found)) else None


def _instance_check(site: Site, match: Normalised) -> str | None:
    dims = site.facts.dims(match.source)
    if dims is None or dims[1] is None:
        return "the number of channels is not known"
    return _obstacle(site, match)


def _reads_channels(site: Site, dims: Dims, sizes: tuple[int, ...] | None) -> bool:
    """Whether what follows has a number per channel, rather than one per normalised element."""
    if sizes is None:
        return True
    operands = [
        value
        for use in _out(site).uses()
        if use.node.op_type in ("Mul", "Add")
        for value in use.node.inputs
    ]
    tensors = [tensor for tensor in map(site.tensor, operands) if tensor is not None]
    shapes = [tuple(tensor.shape.numpy()) for tensor in tensors]
    wanted = (dims[1], *(1,) * len(sizes))
    if any(shape in (wanted, (1, *wanted)) for shape in shapes):
        return True
    return len(sizes) > 1 and not any(shape[-len(sizes) :] == sizes for shape in shapes)


def _instance(site: Site, match: Normalised, build: Build) -> Rewritten:
    dims, dtype = site.facts.dims(match.source), site.facts.dtype(match.source)
    assert dims is not None
    assert dims[1] is not None
    assert dtype is not None
    scale = build.constant(np.ones(dims[1], FLOATS[dtype]), "norm_scale")
    bias = build.constant(np.zeros(dims[1], FLOATS[dtype]), "norm_bias")
    inputs = [match.source, scale, bias]
    attributes = {"epsilon": match.epsilon or 0.0}
    made = build.op("InstanceNormalization", inputs, attributes, like=match.source)
    return _scaled(site, match, build, made)


_ANCHORS = ("Div", "Mul")
RULES = (
    Rule("instance-norm", _ANCHORS, _per_instance, _instance_check, _instance),
    Rule(
        "layer-norm",
        _ANCHORS,
        _normalised(centre=True),
        last_axes_check,
        _emit("LayerNormalization"),
        opset=17,
    ),
    Rule(
        "rms-norm",
        _ANCHORS,
        _normalised(centre=False),
        last_axes_check,
        _emit("RMSNormalization"),
        NOT_PRIMITIVE,
        opset=23,
    ),
    Rule(
        "rms-norm-ort",
        _ANCHORS,
        _normalised(centre=False),
        last_axes_check,
        _emit("SimplifiedLayerNormalization"),
        CONTRIB,
    ),
)
