"""Scale and bias after a normalisation, taken in; and the casts around one.

With w and b of the shape of the normalised axes, and Norm one of LayerNormalization and
RMSNormalization:

    Norm(x, s) * w               ->  Norm(x, s * w)
    Norm(x, s, c) + b            ->  Norm(x, s, c + b)           (RMSNormalization has no bias)
    Cast16(Norm(Cast32(x), 1))   ->  Norm(x, 1)

The last holds because the operators compute in float32 (stash_type 1) and round the normalised
value to the type of x before they scale it. A weight that is no constant is taken in where its
shape is proven, and nothing is there yet that it would have to be combined with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.fusions.norm.core import FLOATS
from leptonc.passes.fusions.norm.parts import broadcasts
from leptonc.passes.graph.insertion import AttributeValue
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site, commuted
from leptonc.passes.targets import GENERIC, ORT_CPU, ORT_CUDA

Array = np.ndarray[Any, Any]

_NORMS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")


@dataclass(frozen=True)
class Affine:
    """A normalisation and what follows it.

    Attributes:
        norm: The node.
        weight: What its result is multiplied by, or what is added to it.
    """

    norm: ir.Node
    weight: ir.Value


def _after(*norms: str) -> Callable[[Site], Affine | None]:
    def pattern(site: Site) -> Affine | None:
        for value, weight in commuted(site.node):
            norm = site.producer(value, *norms)
            if norm is not None and len(norm.inputs) >= 2 and _may_be_weight(site, norm, weight):
                return Affine(norm, weight)
        return None

    return pattern


def _may_be_weight(site: Site, norm: ir.Node, value: ir.Value) -> bool:
    """Whether `value` could be a weight: a residual or a gate has all the axes of the input."""
    own, whole = site.facts.rank(value), site.facts.rank(norm.inputs[0])
    return site.tensor(value) is not None or own is None or whole is None or own < whole


def bias_of(norm: ir.Node) -> ir.Value | None:
    """Return the third input."""
    return norm.inputs[2] if len(norm.inputs) > 2 else None


def normalised_sizes(site: Site, norm: ir.Node) -> tuple[int, ...] | None:
    """Return the sizes of the axes that `norm` normalises, when they are known."""
    dims = site.facts.dims(norm.inputs[0])
    axis = norm.attributes.get_int("axis", -1)
    if dims is None or not -len(dims) <= axis < len(dims):
        return None
    sizes = tuple(size for size in dims[axis:] if size is not None)
    return sizes if len(sizes) == len(dims[axis:]) else None


def used_statistics(norm: ir.Node) -> str | None:
    """Return why the other outputs of `norm` cannot go."""
    for output in norm.outputs[1:]:
        if output.name and (output.is_graph_output() or output.uses()):
            return f"the statistics {output.name!r} are read"
    return None


def _obstacle(site: Site, match: Affine, present: ir.Value | None) -> str | None:
    """Return why the weight cannot be combined with what is there already, or with nothing."""
    norm, weight = match.norm, match.weight
    sizes = normalised_sizes(site, norm)
    if sizes is None:
        return "the sizes of the normalised axes are not known"
    tensor, before = site.tensor(weight), site.tensor(present)
    whole, own = site.facts.rank(norm.inputs[0]), site.facts.static(weight)
    if whole is None or own is None or not broadcasts(own, sizes, whole):
        return f"{weight.name!r} is not known to be of the shape of the normalised axes"
    if tensor is None and own != sizes:
        return f"{weight.name!r} is no constant, and not of the shape of the normalised axes"
    if present is not None and not (before is not None and _is_one(before)):
        if tensor is None or before is None:
            return f"{present.name!r} and {weight.name!r} are not both constant"
        if before.dtype != ir.DataType.FLOAT:
            return "two weights in half precision would be rounded once more"
        if not broadcasts(tuple(before.shape.numpy()), sizes, len(sizes)):
            return f"{present.name!r} is not of the shape of the normalised axes"
    return site.read_elsewhere(norm.outputs[0], (site.node,)) or used_statistics(norm)


def _scale_check(site: Site, match: Affine) -> str | None:
    if bias_of(match.norm) is not None:
        return "a bias comes before the scale"
    return _obstacle(site, match, match.norm.inputs[1])


def _bias_check(site: Site, match: Affine) -> str | None:
    return _obstacle(site, match, bias_of(match.norm))


def _is_one(tensor: ir.TensorProtocol) -> bool:
    return bool((tensor.numpy() == 1).all())


def _combined(
    site: Site,
    match: Affine,
    build: Build,
    present: ir.TensorProtocol | None,
    combine: Callable[[Array, Array], Array],
) -> ir.Value:
    """Return the weight in the shape of the normalised axes, combined with what was there."""
    sizes, tensor = normalised_sizes(site, match.norm), site.tensor(match.weight)
    assert sizes is not None
    if tensor is None or (present is None and tuple(tensor.shape.numpy()) == sizes):
        return match.weight
    values = _spread(tensor.numpy(), sizes)
    if present is not None:
        values = combine(_spread(present.numpy(), sizes), values)
    return build.constant(values, "norm_weight")


def _spread(array: Array, sizes: tuple[int, ...]) -> Array:
    core = array.reshape(array.shape[max(0, array.ndim - len(sizes)) :])
    return np.broadcast_to(core, sizes)


def _take_scale(site: Site, match: Affine, build: Build) -> Rewritten:
    norm, out = match.norm, site.node.outputs[0]
    scale = site.tensor(norm.inputs[1])
    present = None if scale is None or _is_one(scale) else scale
    weight = _combined(site, match, build, present, np.multiply)
    return {out: again(build, norm, [norm.inputs[0], weight], norm.outputs[0])}


def _take_bias(site: Site, match: Affine, build: Build) -> Rewritten:
    norm, out = match.norm, site.node.outputs[0]
    bias = _combined(site, match, build, site.tensor(bias_of(norm)), np.add)
    return {out: again(build, norm, [norm.inputs[0], norm.inputs[1], bias], norm.outputs[0])}


def again(build: Build, norm: ir.Node, inputs: list[ir.Value | None], like: ir.Value) -> ir.Value:
    """Make a node like `norm` on other inputs."""
    attributes: dict[str, AttributeValue] = {
        name: attribute.value for name, attribute in norm.attributes.items()
    }
    return build.op(norm.op_type, inputs, attributes, like=like)


@dataclass(frozen=True)
class Between:
    """A normalisation between two casts.

    Attributes:
        norm: The node.
        source: What is cast before it.
    """

    norm: ir.Node
    source: ir.Value


def _between_casts(site: Site) -> Between | None:
    norm = site.producer(site.input(0), *_NORMS)
    before = None if norm is None else site.producer(norm.inputs[0], "Cast")
    if norm is None or before is None or before.inputs[0] is None:
        return None
    return Between(norm, before.inputs[0])


def _cast_check(site: Site, match: Between) -> str | None:
    norm = match.norm
    narrow = site.facts.dtype(match.source)
    if narrow != ir.DataType.FLOAT16 or site.node.attributes.get_int("to") != narrow.value:
        return "the casts are not from float16 and back"
    if site.facts.dtype(norm.outputs[0]) != ir.DataType.FLOAT:
        return "the normalisation is not in float32"
    if norm.attributes.get_int("stash_type", 1) != ir.DataType.FLOAT.value:
        return "the normalisation does not compute in float32"
    scale = site.tensor(norm.inputs[1])
    if scale is None or not _is_one(scale) or bias_of(norm) is not None:
        return "the scale is applied before the cast"
    return site.read_elsewhere(norm.outputs[0], (site.node,)) or used_statistics(norm)


def _without_casts(site: Site, match: Between, build: Build) -> Rewritten:
    norm, out = match.norm, site.node.outputs[0]
    scale = site.tensor(norm.inputs[1])
    assert scale is not None
    ones = build.constant(np.ones(scale.shape.numpy(), FLOATS[ir.DataType.FLOAT16]), "norm_scale")
    return {out: again(build, norm, [match.source, ones], out)}


RULES = (
    Rule("norm-scale", ("Mul",), _after(*_NORMS), _scale_check, _take_scale),
    Rule("norm-bias", ("Add",), _after("LayerNormalization"), _bias_check, _take_bias),
    Rule(
        "norm-casts",
        ("Cast",),
        _between_casts,
        _cast_check,
        _without_casts,
        # Elsewhere the operator may compute in the type of its input.
        targets=frozenset({GENERIC, ORT_CPU, ORT_CUDA}),
    ),
)
