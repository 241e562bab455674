"""Takes ONNX Runtime's FusedConv apart again, where half the width is asked for.

    FusedConv(x, W, b, z, activation="Relu")  ->  Relu(Conv(x, W, b) + z)

On CUDA the engine computes FusedConv in float32 alone, and Conv in float16 too.
"""

from __future__ import annotations

from leptonc.passes.rewriting.build import AttributeValue, Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.rule_pass import RulePass
from leptonc.passes.rewriting.site import Site

_OWN = ("activation", "activation_params")
# Without parameters, and so the same operator of the standard domain.
_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh")


def _fused(site: Site) -> str | None:
    activation = site.node.attributes.get("activation")
    return None if activation is None else activation.as_string()


def _check(site: Site, match: str) -> str | None:
    del site
    return None if match in _ACTIVATIONS else f"{match} has parameters"


def _rewrite(site: Site, match: str, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    attributes: dict[str, AttributeValue] = {
        name: attribute.value
        for name, attribute in site.node.attributes.items()
        if name not in _OWN
    }
    conv = build.op("Conv", list(site.node.inputs[:3]), attributes, like=out)
    added = site.input(3)
    if added is not None:
        conv = build.op("Add", [conv, added], like=out)
    return {out: build.op(match, [conv], like=out)}


RULES = (Rule("plain-conv", ("com.microsoft.FusedConv",), _fused, _check, _rewrite),)

PLAIN_CONVOLUTION = RulePass("plain-convolution", __doc__, RULES)
