"""A convolution with its activation, as one node of ONNX Runtime.

    Relu(Conv(x, W, b))        ->  FusedConv(x, W, b, activation="Relu")
    Relu(Conv(x, W, b) + z)    ->  FusedConv(x, W, b, z)                    (CUDA only)

On a CPU the engine takes Relu, Sigmoid, Tanh, LeakyRelu, Clip and HardSigmoid, and rearranges
FusedConv for the instruction set like Conv. It adds z there by itself, after rearranging, so the
sum is left to it. On CUDA the activation is Relu only.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.graph.insertion import AttributeValue
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.rule_pass import RulePass
from leptonc.passes.rewriting.scalars import read_outside
from leptonc.passes.rewriting.site import IN_INTEGERS, Site, commuted
from leptonc.passes.targets import ORT_CPU, ORT_CUDA

_ON_CPU = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid")
_ON_CUDA = ("Relu",)
_CLIP_INPUTS = 11


@dataclass(frozen=True)
class Activated:
    """A convolution and what follows it.

    Attributes:
        conv: The Conv.
        added: What is added before the activation, or None.
        inner: Nodes between, with the Conv.
        parameters: Of the activation.
    """

    conv: ir.Node
    added: ir.Value | None
    inner: tuple[ir.Node, ...]
    parameters: tuple[float, ...] | None


def _alone(site: Site) -> Activated | None:
    conv = site.producer(site.input(0), "Conv")
    return None if conv is None else Activated(conv, None, (conv,), _parameters(site))


def _summed(site: Site) -> Activated | None:
    add = site.producer(site.input(0), "Add")
    for value, other in commuted(add):
        conv = site.producer(value, "Conv")
        if conv is not None and add is not None:
            return Activated(conv, other, (conv, add), ())
    return None


def _parameters(site: Site) -> tuple[float, ...] | None:
    """Return the numbers of the activation, or None when they are not constants."""
    node = site.node
    if node.op_type == "LeakyRelu":
        return (node.attributes.get_float("alpha", 0.01),)
    if node.op_type == "HardSigmoid":
        alpha = node.attributes.get_float("alpha", 0.2)
        return (alpha, node.attributes.get_float("beta", 0.5))
    if node.op_type != "Clip":
        return ()
    bounds = [None if value is None else site.scalar(value) for value in node.inputs[1:3]]
    if site.opset < _CLIP_INPUTS or len(bounds) != 2 or None in bounds:
        return None
    return tuple(bound for bound in bounds if bound is not None)


def _check(site: Site, match: Activated) -> str | None:
    if site.is_quantized(match.conv):
        return IN_INTEGERS
    if match.parameters is None:
        return "the bounds are not both constants"
    if site.facts.dtype(match.conv.outputs[0]) != ir.DataType.FLOAT:
        return "the element type is not float32"
    if match.added is not None:
        whole = site.facts.symbolic(match.conv.outputs[0])
        if whole is None or whole != site.facts.symbolic(match.added):
            return "what is added is not known to have the shape of the result"
    if len(match.conv.inputs) < 2 or match.conv.device_configurations:
        return "the convolution is placed by hand"
    return read_outside(site, match.inner)


def _rewrite(site: Site, match: Activated, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    attributes: dict[str, AttributeValue] = {
        name: attribute.value for name, attribute in match.conv.attributes.items()
    }
    attributes["activation"] = site.node.op_type
    if match.parameters:
        attributes["activation_params"] = match.parameters
    inputs = list(match.conv.inputs)
    if match.added is not None:
        inputs = [*[*inputs, None][:3], match.added]
    return {out: build.op("FusedConv", inputs, attributes, domain="com.microsoft", like=out)}


LOWER_CONVOLUTION = RulePass(
    "lower-convolution",
    __doc__,
    (
        Rule(
            "conv-sum-activation",
            _ON_CUDA,
            _summed,
            _check,
            _rewrite,
            targets=frozenset({ORT_CUDA}),
        ),
        Rule("conv-activation", _ON_CPU, _alone, _check, _rewrite, targets=frozenset({ORT_CPU})),
        Rule("conv-activation", _ON_CUDA, _alone, _check, _rewrite, targets=frozenset({ORT_CUDA})),
    ),
)
