"""Group and instance normalisation.

Exporters write group normalisation with G groups of x `[N, C, ...]` as

    Reshape(InstanceNormalization(Reshape(x, [N, G, ...]), 1, 0), shape of x) * w + b

with w and b of `[C, 1, ...]`, which is GroupNormalization-21(x, w, b) (Wu, He, 2018). A scale or
bias per channel that follows InstanceNormalization is taken in like this:

    InstanceNormalization(x, s, b) * w  ->  InstanceNormalization(x, s * w, b * w)
    InstanceNormalization(x, s, b) + c  ->  InstanceNormalization(x, s, b + c)

ONNX Runtime has no kernel for GroupNormalization on a CPU and spells it out again, so that
target keeps the form that it gets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.build import Build
from leptonc.passes.constants import constant
from leptonc.passes.rule import GENERIC, Rewritten, Rule
from leptonc.passes.site import Site, commuted


@dataclass(frozen=True)
class Channels:
    """A node followed by one number for each channel.

    Attributes:
        norm: The InstanceNormalization.
        numbers: `[C]`, as they are stored.
    """

    norm: ir.Node
    numbers: ir.TensorProtocol


def per_channel(value: ir.Value | None, rank: int, channels: int) -> ir.TensorProtocol | None:
    """Return a constant that broadcasts as one number for each of axis 1 of `rank` axes."""
    tensor = constant(value)
    if tensor is None or tensor.size != channels:
        return None
    shape = tuple(int(size) for size in tensor.shape.numpy())
    wanted = (channels, *(1,) * (rank - 2))
    trimmed = shape[1:] if len(shape) == rank and shape[0] == 1 else shape
    return tensor if trimmed == wanted else None


def _channels(site: Site) -> Channels | None:
    for value, factor in commuted(site.node):
        norm = site.producer(value, "InstanceNormalization")
        dims = site.facts.dims(value)
        if norm is None or dims is None or len(dims) < 3 or dims[1] is None:
            continue
        numbers = per_channel(factor, len(dims), dims[1])
        if numbers is not None:
            return Channels(norm, numbers)
    return None


def _channels_check(site: Site, match: Channels) -> str | None:
    norm = match.norm
    if constant(norm.inputs[1]) is None or constant(norm.inputs[2]) is None:
        return "the scale or the bias is no constant"
    return site.read_elsewhere(norm.outputs[0], (site.node,))


def _take_channels(site: Site, match: Channels, build: Build) -> Rewritten:
    norm, out = match.norm, site.node.outputs[0]
    scale, bias = constant(norm.inputs[1]), constant(norm.inputs[2])
    assert scale is not None
    assert bias is not None
    factor = match.numbers.numpy().reshape(-1)
    if site.node.op_type == "Mul":
        pair = (scale.numpy() * factor, bias.numpy() * factor)
    else:
        pair = (scale.numpy(), bias.numpy() + factor)
    inputs = [norm.inputs[0], *(build.constant(array, "norm_weight") for array in pair)]
    attributes = {name: attribute.value for name, attribute in norm.attributes.items()}
    return {out: build.op("InstanceNormalization", inputs, attributes, like=out)}


@dataclass(frozen=True)
class Grouped:
    """Group normalisation as exporters write it.

    Attributes:
        source: x.
        groups: G.
        epsilon: Of the InstanceNormalization.
        scale: w, `[C, 1, ...]`.
        bias: b, of the same shape.
        inner: What goes.
    """

    source: ir.Value
    groups: int
    epsilon: float
    scale: ir.TensorProtocol
    bias: ir.TensorProtocol
    inner: tuple[ir.Node, ...]


def _grouped(site: Site) -> Grouped | None:
    dims = site.facts.dims(site.node.outputs[0])
    if dims is None or len(dims) < 3 or dims[1] is None:
        return None
    for value, shift in commuted(site.node):
        bias, mul = per_channel(shift, len(dims), dims[1]), site.producer(value, "Mul")
        if bias is None or mul is None:
            continue
        for inside, factor in commuted(mul):
            scale = per_channel(factor, len(dims), dims[1])
            back = site.producer(inside, "Reshape")
            norm = site.producer(back.inputs[0], "InstanceNormalization") if back else None
            split = site.producer(norm.inputs[0], "Reshape") if norm else None
            if scale is None or back is None or norm is None or split is None:
                continue
            between = site.facts.dims(split.outputs[0])
            source = split.inputs[0]
            if source is None or between is None or len(between) < 3 or between[1] is None:
                continue
            epsilon = norm.attributes.get_float("epsilon", 1e-5)
            inner = (mul, back, norm, split)
            return Grouped(source, between[1], epsilon, scale, bias, inner)
    return None


def _grouped_check(site: Site, match: Grouped) -> str | None:
    _, back, norm, split = match.inner
    whole, dims = site.facts.symbolic(match.source), site.facts.symbolic(split.outputs[0])
    if whole is None or whole != site.facts.symbolic(back.outputs[0]):
        return "the shape is not known to be that of the input again"
    if dims is None or dims[0] != whole[0]:
        return "the groups are not known to stay within a sample"
    channels = whole[1].number
    if channels is None or channels % match.groups:
        return "the channels do not divide into the groups"
    plain = [constant(value) for value in norm.inputs[1:3]]
    for tensor, neutral in zip(plain, (1.0, 0.0), strict=True):
        if tensor is None or not (tensor.numpy() == neutral).all():
            return "the scale or the bias within the groups is not neutral"
    inside = (*match.inner, site.node)
    for node in match.inner:
        reason = site.read_elsewhere(node.outputs[0], inside)
        if reason is not None:
            return reason
    return None


def _group(site: Site, match: Grouped, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    weights = [
        build.constant(np.array(tensor.numpy().reshape(-1)), "norm_weight")
        for tensor in (match.scale, match.bias)
    ]
    attributes = {"num_groups": match.groups, "epsilon": match.epsilon}
    inputs = [match.source, *weights]
    return {out: build.op("GroupNormalization", inputs, attributes, like=out)}


RULES = (
    Rule(
        "group-norm",
        ("Add",),
        _grouped,
        _grouped_check,
        _group,
        targets=frozenset({GENERIC}),
        opset=21,
    ),
    Rule("instance-norm-affine", ("Mul", "Add"), _channels, _channels_check, _take_channels),
)
