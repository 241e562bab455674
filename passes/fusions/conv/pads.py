"""A Pad before a convolution or a pooling, in its own pads.

    Conv(Pad(x, p, 0), pads=q)                       ->  Conv(x, pads=p+q)
    AveragePool(Pad(x, p, 0), pads=0)                ->  AveragePool(x, pads=p), zeros counted
    AveragePool(Pad(x, p, 0), pads=q), zeros counted ->  AveragePool(x, pads=p+q), zeros counted
    MaxPool(Pad(x, p, v), pads=0 or v=-inf)          ->  MaxPool(x, pads=p+q)

p pads spatial axes only, by constants that are not negative. A maximum ignores its own padding,
so v must not exceed what it is taken over: v is -inf, or not above 0 where x comes out of Relu,
Sigmoid or a softmax. Every window must see an element of x: pads stay below the kernel. Exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.graph.constants import constant_ints
from leptonc.passes.rewriting.build import Build, attributes_of
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site

_NOT_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs", "Softplus", "Exp")
_FIRST_OPSET = 11


@dataclass(frozen=True)
class Padded:
    """A Pad by constants.

    Attributes:
        pad: The node.
        source: What is padded.
        before: For each axis, how much before it.
        after: The same after it.
        value: With what.
    """

    pad: ir.Node
    source: ir.Value
    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float


def _padded(site: Site) -> Padded | None:
    pad = site.producer(site.input(0), "Pad")
    if pad is None or site.opset < _FIRST_OPSET or pad.inputs[0] is None:
        return None
    if pad.attributes.get_string("mode", "constant") != "constant":
        return None
    inputs = [*pad.inputs, None, None][:4]
    pads, rank = constant_ints(inputs[1]), site.facts.rank(pad.inputs[0])
    value = 0.0 if inputs[2] is None else site.scalar(inputs[2])
    if pads is None or rank is None or value is None:
        return None
    axes = tuple(range(rank)) if inputs[3] is None else constant_ints(inputs[3])
    if axes is None or len(pads) != 2 * len(axes):
        return None
    before, after = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        before[axis % rank] = pads[index]
        after[axis % rank] = pads[index + len(axes)]
    return Padded(pad, pad.inputs[0], tuple(before), tuple(after), value)


def own_pads(site: Site, spatial: int) -> tuple[int, ...] | None:
    """Return the pads of a convolution or pooling, or None when they depend on its input."""
    auto = site.node.attributes.get_string("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", ""):
        return None
    given = site.attribute_ints("pads")
    return (0,) * (2 * spatial) if given is None or auto == "VALID" else given


def _shared_check(site: Site, match: Padded) -> str | None:
    if any(match.before[:2]) or any(match.after[:2]):
        return "it pads samples or channels"
    if min(*match.before, *match.after) < 0:
        return "it cuts"
    if own_pads(site, len(match.before) - 2) is None:
        return "the pads of the node follow from the size of its input"
    return site.read_elsewhere(match.pad.outputs[0], (site.node,))


def _conv_check(site: Site, match: Padded) -> str | None:
    if match.value != 0.0:
        return f"it pads with {match.value}"
    return _shared_check(site, match)


def _pool_check(site: Site, match: Padded) -> str | None:
    node, spatial = site.node, len(match.before) - 2
    pads, kernel = own_pads(site, spatial), site.attribute_ints("kernel_shape")
    if len(node.outputs) > 1 and node.outputs[1].name:
        return "the indices of the maxima are read"
    if node.attributes.get_int("ceil_mode", 0):
        return "the size of the result is rounded up"
    if any(step != 1 for step in site.attribute_ints("dilations") or ()):
        return "the window has gaps"
    reason = _shared_check(site, match)
    if reason is not None or pads is None or kernel is None:
        return reason or "the kernel is not known"
    total = _total(match, pads)
    if any(pad >= kernel[index % spatial] for index, pad in enumerate(total)):
        return "a window could see nothing but padding"
    # AveragePool: with zeros, which are counted.
    if node.op_type == "AveragePool":
        if match.value != 0.0:
            return f"it pads with {match.value}"
        counted = node.attributes.get_int("count_include_pad", 0)
        return None if counted or not any(pads) else "its own padding does not count, zeros do"
    # MaxPool: with what is never the largest.
    if match.value == float("-inf"):
        return None
    positive = site.producer(match.source, *_NOT_NEGATIVE) is not None
    if match.value > 0.0 or not positive:
        return f"{match.value} may be the largest in a window"
    return None


def _total(match: Padded, pads: tuple[int, ...]) -> tuple[int, ...]:
    given = (*match.before[2:], *match.after[2:])
    return tuple(a + b for a, b in zip(given, pads, strict=True))


def _take_pads(site: Site, match: Padded, build: Build) -> Rewritten:
    node, out = site.node, site.node.outputs[0]
    pads = own_pads(site, len(match.before) - 2)
    assert pads is not None
    counted = {"count_include_pad": 1} if node.op_type == "AveragePool" else {}
    attributes = attributes_of(node, auto_pad=None, pads=_total(match, pads), **counted)
    inputs = [match.source, *node.inputs[1:]]
    return {out: build.op(node.op_type, inputs, attributes, domain=node.domain, like=out)}


RULES = (
    Rule("pad-conv", ("Conv", "com.microsoft.FusedConv"), _padded, _conv_check, _take_pads),
    Rule("pad-pool", ("AveragePool", "MaxPool"), _padded, _pool_check, _take_pads),
)
