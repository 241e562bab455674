"""Scale and bias after a normalisation, taken in; and the casts around one.

With n the normalised value, w and b of the shape of its normalised axes:

    Norm(x, s) * w             ->  Norm(x, s * w)
    Norm(x, s) + b             ->  Norm(x, s, b)                (not for RMS, which has no bias)
    Cast16(Norm(Cast32(x), 1)) ->  Norm(x, 1)

The last holds because the operators compute in float32 (stash_type 1) and round the normalised
value to the type of x before they scale it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.build import Build
from leptonc.passes.constants import constant
from leptonc.passes.fusions.norm_core import FLOATS
from leptonc.passes.rule import Rewritten, Rule
from leptonc.passes.site import Site, commuted
from leptonc.passes.sizes import ONE

_RMS = ("RMSNormalization", "SimplifiedLayerNormalization")
_NORMS = ("LayerNormalization", *_RMS)


@dataclass(frozen=True)
class Affine:
    """A normalisation and what follows it.

    Attributes:
        norm: The node.
        factor: What its result is multiplied by, or what is added to it.
    """

    norm: ir.Node
    factor: ir.Value


def _after(*norms: str) -> Callable[[Site], Affine | None]:
    def pattern(site: Site) -> Affine | None:
        for value, factor in commuted(site.node):
            norm = site.producer(value, *norms)
            if norm is not None and len(norm.inputs) <= 3:
                return Affine(norm, factor)
        return None

    return pattern


def _bias_of(norm: ir.Node) -> ir.Value | None:
    return norm.inputs[2] if len(norm.inputs) > 2 else None


def _fits(site: Site, match: Affine) -> str | None:
    """Check that the factor has one element for each of the normalised axes."""
    norm, factor = match.norm, match.factor
    dims, own = site.facts.symbolic(norm.inputs[0]), site.facts.symbolic(factor)
    if dims is None or own is None:
        return "a shape is not known"
    axis = norm.attributes.get_int("axis", -1) % len(dims)
    if len(own) > len(dims):
        return "the other operand has more dimensions"
    tail, lead = dims[axis:], own[: max(0, len(own) - len(dims) + axis)]
    core = own[len(lead) :]
    single = constant(factor) is not None and all(size == ONE for size in core)
    if any(size != ONE for size in lead) or (core != tail and not single):
        return "the other operand is not one element for each normalised one"
    if (lead or core != tail) and constant(factor) is None:
        return "the other operand has another shape and is no constant"
    if site.facts.dtype(factor) != site.facts.dtype(norm.outputs[0]):
        return "the element types differ"
    return site.read_elsewhere(norm.outputs[0], (site.node,)) or _used_statistics(norm)


def _used_statistics(norm: ir.Node) -> str | None:
    for output in norm.outputs[1:]:
        if output.name and (output.is_graph_output() or output.uses()):
            return f"the statistics {output.name!r} are read"
    return None


def _scale_check(site: Site, match: Affine) -> str | None:
    if _bias_of(match.norm) is not None:
        return "a bias comes before the scale"
    scale = constant(match.norm.inputs[1])
    if scale is None or (not _is_one(scale) and constant(match.factor) is None):
        return "the scale that is there already is no constant"
    return _fits(site, match)


def _bias_check(site: Site, match: Affine) -> str | None:
    if _bias_of(match.norm) is not None and (
        constant(_bias_of(match.norm)) is None or constant(match.factor) is None
    ):
        return "there is a bias already"
    return _fits(site, match)


def _is_one(tensor: ir.TensorProtocol) -> bool:
    return bool((tensor.numpy() == 1).all())


def _combined(
    build: Build,
    old: ir.Value | None,
    factor: ir.Value,
    sizes: tuple[int, ...],
    combine: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> ir.Value:
    """Return the factor in the shape of the normalised axes, combined with what was there."""
    new, before = constant(factor), constant(old)
    if new is None:
        return factor
    plain = new.numpy().reshape(-1)
    flat = plain.reshape(sizes) if plain.size > 1 else np.broadcast_to(plain, sizes)
    if before is None and tuple(new.shape.numpy()) == sizes:
        return factor
    values = flat if before is None else combine(before.numpy(), flat)
    return build.constant(values.astype(flat.dtype), "norm_weight")


def _take_scale(site: Site, match: Affine, build: Build) -> Rewritten:
    norm, out = match.norm, site.node.outputs[0]
    scale = constant(norm.inputs[1])
    assert scale is not None
    old = None if _is_one(scale) else norm.inputs[1]
    sizes = tuple(int(size) for size in scale.shape.numpy())
    weight = _combined(build, old, match.factor, sizes, np.multiply)
    return {out: _again(build, norm, [norm.inputs[0], weight], out)}


def _take_bias(site: Site, match: Affine, build: Build) -> Rewritten:
    norm, out = match.norm, site.node.outputs[0]
    dims = site.facts.dims(norm.inputs[0])
    scale = norm.inputs[1]
    assert dims is not None
    axis = norm.attributes.get_int("axis", -1) % len(dims)
    sizes = tuple(size or 0 for size in dims[axis:])
    bias = _combined(build, _bias_of(norm), match.factor, sizes, np.add)
    return {out: _again(build, norm, [norm.inputs[0], scale, bias], out)}


def _again(build: Build, norm: ir.Node, inputs: list[ir.Value | None], like: ir.Value) -> ir.Value:
    attributes = {name: attribute.value for name, attribute in norm.attributes.items()}
    return build.op(norm.op_type, inputs, attributes, like=like)


@dataclass(frozen=True)
class Cast:
    """A normalisation in float32 between two casts."""

    norm: ir.Node
    source: ir.Value


def _between_casts(site: Site) -> Cast | None:
    norm = site.producer(site.input(0), *_NORMS)
    before = None if norm is None else site.producer(norm.inputs[0], "Cast")
    if norm is None or before is None or before.inputs[0] is None:
        return None
    return Cast(norm, before.inputs[0])


def _cast_check(site: Site, match: Cast) -> str | None:
    norm = match.norm
    narrow = site.facts.dtype(match.source)
    if narrow != ir.DataType.FLOAT16 or site.node.attributes.get_int("to") != narrow.value:
        return "the casts are not from float16 and back"
    if site.facts.dtype(norm.outputs[0]) != ir.DataType.FLOAT:
        return "the normalisation is not in float32"
    scale = constant(norm.inputs[1])
    if scale is None or not _is_one(scale) or _bias_of(norm) is not None:
        return "the scale is applied before the cast"
    return site.read_elsewhere(norm.outputs[0], (site.node,)) or _used_statistics(norm)


def _without_casts(site: Site, match: Cast, build: Build) -> Rewritten:
    norm, out = match.norm, site.node.outputs[0]
    scale = constant(norm.inputs[1])
    assert scale is not None
    ones = build.constant(np.ones(scale.shape.numpy(), FLOATS[ir.DataType.FLOAT16]), "norm_scale")
    return {out: _again(build, norm, [match.source, ones], out)}


RULES = (
    Rule("norm-scale", ("Mul",), _after(*_NORMS), _scale_check, _take_scale),
    Rule("norm-bias", ("Add",), _after("LayerNormalization"), _bias_check, _take_bias),
    Rule("norm-casts", ("Cast",), _between_casts, _cast_check, _without_casts),
)
