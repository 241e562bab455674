"""Group and instance normalisation.

Exporters write group normalisation with G groups of x `[N, C, ...]` as

    Reshape(InstanceNormalization(Reshape(x, [N, G, ...]), 1, 0), shape of x) * w + b

with w and b of `[C, 1, ...]`, which is GroupNormalization-21(x, w, b) (Wu, He, 2018). A scale or
bias per channel that follows either operator is taken in:

    Norm(x, s, b) * w  ->  Norm(x, s * w, b * w)
    Norm(x, s, b) + c  ->  Norm(x, s, b + c)

ONNX Runtime has no kernel for GroupNormalization on a CPU and spells it out in 29 nodes, so for
it the form stays as it is. Its own GroupNorm wants channels last, and no exporter writes that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.fusions.norm.affine import again
from leptonc.passes.fusions.norm.core import FLOATS
from leptonc.passes.graph.constants import constant
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.scalars import read_outside
from leptonc.passes.rewriting.site import Site, commuted
from leptonc.passes.targets import GENERIC


@dataclass(frozen=True)
class Channels:
    """A node followed by one number for each channel.

    Attributes:
        norm: The InstanceNormalization or GroupNormalization.
        numbers: `[C]`, as they are stored.
    """

    norm: ir.Node
    numbers: ir.TensorProtocol


def per_channel(value: ir.Value | None, rank: int, channels: int) -> ir.TensorProtocol | None:
    """Return a constant that broadcasts as one number for each of axis 1 of `rank` axes."""
    tensor = constant(value)
    if tensor is None:
        return None
    shape = tuple(int(size) for size in tensor.shape.numpy())
    if tensor.size == 1:
        return tensor if len(shape) <= rank else None
    wanted = (channels, *(1,) * (rank - 2))
    trimmed = shape[1:] if len(shape) == rank and shape[0] == 1 else shape
    return tensor if trimmed == wanted else None


def _channels(site: Site) -> Channels | None:
    for value, factor in commuted(site.node):
        norm = site.producer(value, "InstanceNormalization", "GroupNormalization")
        dims = site.facts.dims(value)
        if norm is None or dims is None or len(dims) < 3 or dims[1] is None:
            continue
        numbers = per_channel(factor, len(dims), dims[1])
        if numbers is not None:
            return Channels(norm, numbers)
    return None


def _channels_check(site: Site, match: Channels) -> str | None:
    norm = match.norm
    scale, bias = (constant(value) for value in norm.inputs[1:3])
    if scale is None or bias is None:
        return "the scale or the bias is no constant"
    if scale.size != bias.size or match.numbers.size not in (1, scale.size):
        return "the scale or the bias is not one number per channel"
    neutral = _all(scale, 1.0) and _all(bias, 0.0)
    if match.numbers.dtype != ir.DataType.FLOAT and not neutral and site.node.op_type == "Mul":
        return "two weights in half precision would be rounded once more"
    if match.numbers.dtype != ir.DataType.FLOAT and not _all(bias, 0.0):
        return "two weights in half precision would be rounded once more"
    return site.read_elsewhere(norm.outputs[0], (site.node,))


def _all(tensor: ir.TensorProtocol, number: float) -> bool:
    return bool((tensor.numpy() == number).all())


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
    return {out: again(build, norm, inputs, norm.outputs[0])}


@dataclass(frozen=True)
class Grouped:
    """Group normalisation without scale and bias, as exporters write it.

    Attributes:
        source: x.
        split: The Reshape to groups.
        norm: The InstanceNormalization of each group.
    """

    source: ir.Value
    split: ir.Node
    norm: ir.Node


def _grouped(site: Site) -> Grouped | None:
    norm = site.producer(site.input(0), "InstanceNormalization")
    split = None if norm is None else site.producer(norm.inputs[0], "Reshape")
    if norm is None or split is None or split.inputs[0] is None:
        return None
    return Grouped(split.inputs[0], split, norm)


def _grouped_check(site: Site, match: Grouped) -> str | None:
    facts, norm = site.facts, match.norm
    whole, parts = facts.symbolic(match.source), facts.symbolic(match.split.outputs[0])
    if whole is None or whole != facts.symbolic(site.node.outputs[0]):
        return "the shape is not known to be that of the input again"
    if parts is None or parts[0] != whole[0]:
        return "the groups are not known to stay within a sample"
    sizes = _channels_and_groups(site, match)
    if sizes is None or sizes[0] % sizes[1]:
        return "the channels are not known to divide into the groups"
    if facts.dtype(match.source) not in FLOATS:
        return "the element type is not float32 or float16"
    scale, bias = (constant(value) for value in norm.inputs[1:3])
    if scale is None or bias is None or not (_all(scale, 1.0) and _all(bias, 0.0)):
        return "the scale or the bias within the groups is not neutral"
    return read_outside(site, (norm, match.split))


def _channels_and_groups(site: Site, match: Grouped) -> tuple[int, int] | None:
    """Return C and G, when they are known and not 0."""
    whole = site.facts.symbolic(match.source)
    parts = site.facts.symbolic(match.split.outputs[0])
    if whole is None or parts is None or len(whole) < 3 or len(parts) < 2:
        return None
    channels, groups = whole[1].number, parts[1].number
    return (channels, groups) if channels and groups else None


def _group(site: Site, match: Grouped, build: Build) -> Rewritten:
    sizes, dtype = _channels_and_groups(site, match), site.facts.dtype(match.source)
    assert sizes is not None
    assert dtype is not None
    channels, groups = sizes
    fills: tuple[Callable[..., np.ndarray], ...] = (np.ones, np.zeros)
    weights = [build.constant(fill(channels, FLOATS[dtype]), "norm_weight") for fill in fills]
    epsilon = match.norm.attributes.get_float("epsilon", 1e-5)
    inputs = [match.source, *weights]
    attributes = {"num_groups": groups, "epsilon": epsilon}
    made = build.op("GroupNormalization", inputs, attributes, like=match.source)
    return {site.node.outputs[0]: made}


RULES = (
    Rule(
        "group-norm",
        ("Reshape",),
        _grouped,
        _grouped_check,
        _group,
        targets=frozenset({GENERIC}),
        opset=21,
    ),
    Rule("channel-norm-affine", ("Mul", "Add"), _channels, _channels_check, _take_channels),
)
