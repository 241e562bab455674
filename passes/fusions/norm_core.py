"""Normalisation written in primitive operators.

With m the mean over trailing axes, e a small constant, and v = mean(c^2):

    c = x - m(x):   c / sqrt(v + e)   ->  LayerNormalization(x, 1)       (Ba et al., 2016)
    c = x:          c / sqrt(v + e)   ->  RMSNormalization(x, 1)         (Zhang, Sennrich, 2019)

c^2 is Pow(c, 2) or Mul(c, c). The division is Div by Sqrt, or Mul by the Reciprocal of it, or a
Pow by 0.5 or -0.5. The difference may be computed twice. Scale and bias that follow are taken in
by the rules of `norm_affine`.

Where the sizes of the trailing axes are not known and they are all but the first two, the form
is InstanceNormalization, which has its scale per channel.

For ONNX Runtime the second is SimplifiedLayerNormalization, its own name for it: a third of the
primitive form's time at `[1, 128, 768]` on a CPU, and no newer opset needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.build import Build
from leptonc.passes.constants import constant_ints
from leptonc.passes.rule import GENERIC, ORT_CPU, ORT_CUDA, Rewritten, Rule
from leptonc.passes.site import Site

FLOATS = {
    ir.DataType.FLOAT: np.float32,
    ir.DataType.FLOAT16: np.float16,
}

_LAYER_NORM_OPSET = 17


@dataclass(frozen=True)
class Normalised:
    """A value divided by its deviation.

    Attributes:
        source: x.
        centred: Whether the mean was taken off.
        axes: What the mean is over, as written.
        epsilon: e.
        inner: Every node that goes.
    """

    source: ir.Value
    centred: bool
    axes: tuple[int, ...]
    epsilon: float
    inner: tuple[ir.Node, ...]


def _normalised(site: Site) -> Normalised | None:
    found = _division(site)
    if found is None:
        return None
    top, variance, nodes = found
    epsilon, mean = _sum(site, variance)
    if mean is None or epsilon is None:
        return None
    axes = mean_axes(site, mean)
    squared = None if axes is None else _square(site, mean.inputs[0])
    if squared is None or axes is None:
        return None
    base, square = squared
    add = variance.producer()
    inner = [*nodes, mean, square, *((add,) if add is not None else ())]
    centre, again = _centre(site, top, axes), _centre(site, base, axes)
    if centre is not None and again is not None and centre[0] is again[0]:
        for source in (centre, again):
            inner.extend(node for node in source[1] if node not in inner)
        return Normalised(centre[0], True, axes, epsilon, tuple(inner))
    if top is not base:
        return None
    return Normalised(top, False, axes, epsilon, tuple(inner))


def _division(site: Site) -> tuple[ir.Value, ir.Value, list[ir.Node]] | None:
    """Return what is divided, what the root is taken of, and the nodes between."""
    node = site.node
    if len(node.inputs) != 2 or node.inputs[0] is None or node.inputs[1] is None:
        return None
    if node.op_type == "Div":
        root = _power(site, node.inputs[1], 0.5)
        return None if root is None else (node.inputs[0], root[0], root[1])
    for top, factor in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        root = _power(site, factor, -0.5)
        if root is not None:
            return top, root[0], root[1]
    return None


def _power(site: Site, value: ir.Value, exponent: float) -> tuple[ir.Value, list[ir.Node]] | None:
    """Return the base of `value` as a power of it, and the nodes that raise it."""
    node = site.producer(value, "Sqrt", "Pow", "Reciprocal", "Div")
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type == "Pow":
        return (node.inputs[0], [node]) if site.scalar(node.inputs[1]) == exponent else None
    if node.op_type == "Sqrt":
        return (node.inputs[0], [node]) if exponent == 0.5 else None
    inverted = node.inputs[0] if node.op_type == "Reciprocal" else node.inputs[1]
    if node.op_type == "Div" and site.scalar(node.inputs[0]) != 1.0:
        return None
    if exponent != -0.5 or inverted is None:
        return None
    deeper = _power(site, inverted, 0.5)
    return None if deeper is None else (deeper[0], [node, *deeper[1]])


def _sum(site: Site, value: ir.Value) -> tuple[float | None, ir.Node | None]:
    """Return e and the mean of v + e."""
    add = site.producer(value, "Add")
    if add is None:
        return None, None
    for constant, other in ((add.inputs[0], add.inputs[1]), (add.inputs[1], add.inputs[0])):
        epsilon, mean = site.scalar(constant), site.producer(other, "ReduceMean")
        if epsilon is not None and mean is not None:
            return epsilon, mean
    return None, None


def mean_axes(site: Site, mean: ir.Node) -> tuple[int, ...] | None:
    """Return the axes of a ReduceMean that keeps its dimensions, as written."""
    if not mean.attributes.get_int("keepdims", 1):
        return None
    given = mean.attributes.get_ints("axes")
    if given is not None:
        return tuple(given)
    return constant_ints(mean.inputs[1]) if len(mean.inputs) > 1 else None


def _square(site: Site, value: ir.Value | None) -> tuple[ir.Value, ir.Node] | None:
    node = site.producer(value, "Pow", "Mul")
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type == "Mul":
        return (node.inputs[0], node) if node.inputs[0] is node.inputs[1] else None
    return (node.inputs[0], node) if site.scalar(node.inputs[1]) == 2.0 else None


def _centre(
    site: Site, value: ir.Value, axes: tuple[int, ...]
) -> tuple[ir.Value, list[ir.Node]] | None:
    """Return x and the nodes of x - mean(x)."""
    sub = site.producer(value, "Sub")
    mean = None if sub is None else site.producer(sub.inputs[1], "ReduceMean")
    if sub is None or mean is None or sub.inputs[0] is None:
        return None
    if mean.inputs[0] is not sub.inputs[0] or mean_axes(site, mean) != axes:
        return None
    return sub.inputs[0], [sub, mean]


def _trailing(site: Site, match: Normalised) -> int | None:
    """Return the first axis when the axes are the last ones."""
    rank = site.facts.rank(match.source)
    if rank is None or any(not -rank <= axis < rank for axis in match.axes):
        return None
    axes = sorted(axis % rank for axis in match.axes)
    return axes[0] if axes and axes == list(range(axes[0], rank)) else None


def _shared_obstacle(site: Site, match: Normalised) -> str | None:
    if site.facts.dtype(match.source) not in FLOATS:
        return "the element type is not float32 or float16"
    if site.facts.dtype(site.node.outputs[0]) != site.facts.dtype(match.source):
        return "the element type changes on the way"
    if _trailing(site, match) is None:
        return "the mean is not known to be over the last axes"
    inside = (*match.inner, site.node)
    for node in match.inner:
        reason = site.read_elsewhere(node.outputs[0], inside)
        if reason is not None:
            return reason
    return None


def _sizes(site: Site, match: Normalised) -> tuple[int, ...] | None:
    axis, dims = _trailing(site, match), site.facts.dims(match.source)
    if axis is None or dims is None or any(size is None for size in dims[axis:]):
        return None
    return tuple(size for size in dims[axis:] if size is not None)


def _layer_check(site: Site, match: Normalised) -> str | None:
    if not match.centred:
        return "the mean is not taken off"
    if site.opset < _LAYER_NORM_OPSET:
        return f"opset {site.opset} has no LayerNormalization"
    if _sizes(site, match) is None:
        return "the sizes of the last axes are not known"
    return _shared_obstacle(site, match)


def _rms_check(site: Site, match: Normalised) -> str | None:
    if match.centred:
        return "the mean is taken off"
    if _sizes(site, match) is None:
        return "the sizes of the last axes are not known"
    return _shared_obstacle(site, match)


def _instance_check(site: Site, match: Normalised) -> str | None:
    dims = site.facts.dims(match.source)
    if not match.centred:
        return "the mean is not taken off"
    if _trailing(site, match) != 2 or dims is None or dims[1] is None:
        return "the mean is not over all axes after known channels"
    return _shared_obstacle(site, match)


def _emit(operator: str) -> Callable[[Site, Normalised, Build], Rewritten]:
    def rewrite(site: Site, match: Normalised, build: Build) -> Rewritten:
        sizes, out = _sizes(site, match), site.node.outputs[0]
        dtype = site.facts.dtype(match.source)
        assert sizes is not None
        assert dtype is not None
        ones = build.constant(np.ones(sizes, FLOATS[dtype]), "norm_scale")
        attributes = {"axis": -len(sizes), "epsilon": match.epsilon, "stash_type": 1}
        return {out: build.op(operator, [match.source, ones], attributes, like=out)}

    return rewrite


def _instance(site: Site, match: Normalised, build: Build) -> Rewritten:
    dims, dtype = site.facts.dims(match.source), site.facts.dtype(match.source)
    out = site.node.outputs[0]
    assert dims is not None
    assert dims[1] is not None
    assert dtype is not None
    scale = build.constant(np.ones(dims[1], FLOATS[dtype]), "norm_scale")
    bias = build.constant(np.zeros(dims[1], FLOATS[dtype]), "norm_bias")
    inputs = [match.source, scale, bias]
    made = build.op("InstanceNormalization", inputs, {"epsilon": match.epsilon}, like=out)
    return {out: made}


def _centred(site: Site) -> Normalised | None:
    found = _normalised(site)
    return found if found is not None and found.centred else None


def _plain(site: Site) -> Normalised | None:
    found = _normalised(site)
    return None if found is None or found.centred else found


_ANCHORS = ("Div", "Mul")

RULES = (
    Rule("layer-norm", _ANCHORS, _centred, _layer_check, _emit("LayerNormalization")),
    Rule("instance-norm", _ANCHORS, _centred, _instance_check, _instance),
    Rule(
        "rms-norm",
        _ANCHORS,
        _plain,
        _rms_check,
        _emit("RMSNormalization"),
        targets=frozenset({GENERIC}),
        opset=23,
    ),
    Rule(
        "rms-norm",
        _ANCHORS,
        _plain,
        _rms_check,
        _emit("SimplifiedLayerNormalization"),
        targets=frozenset({ORT_CPU, ORT_CUDA}),
    ),
)
