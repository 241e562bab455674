"""Writes operators of ONNX Runtime's own, which an exporter left, in those of the standard.

For engines that lack them, and for precisions that their kernels lack.

    FusedConv(x, W, b, z, f)   ->  f(Conv(x, W, b) + z)
    FusedGemm(x, W, b, f)      ->  f(Gemm(x, W, b))
    BiasGelu(x, b)             ->  Gelu(x + b)
    FastGelu(x, b)             ->  Gelu(x + b, approximate="tanh")
    QuickGelu(x, alpha)        ->  x * Sigmoid(alpha * x)
    FusedMatMul(a, b, alpha)   ->  alpha * MatMul(a, b), each transposed in its last two axes or not
    SkipLayerNormalization(x, s, scale, shift, b)  ->  LayerNormalization(x + s + b, scale, shift)

The operators are those of onnxruntime/docs/ContribOperators.md. Outputs change by rounding only.
Attention and products of packed weights stay: their plain form is the model before another
optimiser fused it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.insertion import AttributeValue
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.rule_pass import RulePass
from leptonc.passes.rewriting.site import Site

_QUICK_ALPHA = 1.702
_SKIP_EPSILON = 1e-12
_TRANSPOSED = ("transA", "transB")
_OUTER = ("transBatchA", "transBatchB")
# The attributes of activations that have some.
_PARAMETERS = {
    "HardSigmoid": ("alpha", "beta"),
    **dict.fromkeys(("LeakyRelu", "Elu", "Celu", "ThresholdedRelu"), ("alpha",)),
}


def _anything(site: Site) -> str:
    return site.node.op_type


def _activation(site: Site) -> str | None:
    return site.node.attributes.get_string("activation", "") or None


def _apart(site: Site, match: str, build: Build) -> Rewritten:
    node, out = site.node, site.node.outputs[0]
    own: dict[str, AttributeValue] = {
        name: attribute.value
        for name, attribute in node.attributes.items()
        if not name.startswith("activation")
    }
    value = build.op(node.op_type.removeprefix("Fused"), list(node.inputs[:3]), own, like=out)
    added = site.input(3)
    if added is not None:
        value = build.op("Add", [value, added], like=out)
    listed = [float(each) for each in node.attributes.get_floats("activation_params") or ()]
    if match == "Clip":
        bounds = [build.constant(np.array(each, np.float32)) for each in listed]
        return {out: build.op(match, [value, *bounds], like=out)}
    # FusedConv lists the parameters, FusedGemm names them.
    parameters = dict(zip(("alpha", "beta"), listed, strict=False))
    for name in ("alpha", "beta"):
        if f"activation_{name}" in node.attributes:
            parameters[name] = node.attributes[f"activation_{name}"].as_float()
    known = {name: parameters[name] for name in _PARAMETERS.get(match, ()) if name in parameters}
    return {out: build.op(match, [value], known, like=out)}


def _bias_gelu(site: Site, match: str, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    value, bias = site.node.inputs[0], site.input(1)
    if bias is not None:
        value = build.op("Add", [value, bias], like=out)
    approximate = "tanh" if match == "FastGelu" else "none"
    return {out: build.op("Gelu", [value], {"approximate": approximate}, like=out)}


def _has_type(site: Site, match: str) -> str | None:
    del match
    known = site.facts.dtype(site.node.outputs[0]) or site.facts.dtype(site.input(0))
    return None if known is not None else "its element type is not known"


def _scalar(site: Site, build: Build, number: float) -> ir.Value:
    out = site.node.outputs[0]
    dtype = site.facts.dtype(out) or site.facts.dtype(site.input(0))
    assert dtype is not None, "the check let a node without a type pass"
    return build.constant(np.array(number, dtype=dtype.numpy()))


def _quick_gelu(site: Site, match: str, build: Build) -> Rewritten:
    del match
    out = site.node.outputs[0]
    value = site.node.inputs[0]
    alpha = site.node.attributes.get_float("alpha", _QUICK_ALPHA)
    scaled = build.op("Mul", [value, _scalar(site, build, alpha)], like=out)
    gate = build.op("Sigmoid", [scaled], like=out)
    return {out: build.op("Mul", [value, gate], like=out)}


def _product_check(site: Site, match: str) -> str | None:
    attributes = site.node.attributes
    if any(attributes.get_int(name, 0) for name in _OUTER):
        return "it transposes its batch axes"
    for index, name in enumerate(_TRANSPOSED):
        if attributes.get_int(name, 0) and (site.facts.rank(site.input(index)) or 0) < 2:
            return f"the rank of input {index}, which it transposes, is not known to be 2 or more"
    return _has_type(site, match)


def _product(site: Site, match: str, build: Build) -> Rewritten:
    del match
    out = site.node.outputs[0]
    factors = []
    for index, name in enumerate(_TRANSPOSED):
        value = site.node.inputs[index]
        if site.node.attributes.get_int(name, 0):
            axes = list(range(site.facts.rank(value) or 0))
            axes[-2:] = reversed(axes[-2:])
            value = build.op("Transpose", [value], {"perm": axes})
        factors.append(value)
    product = build.op("MatMul", factors, like=out)
    alpha = site.node.attributes.get_float("alpha", 1.0)
    if alpha != 1.0:
        product = build.op("Mul", [product, _scalar(site, build, alpha)], like=out)
    return {out: product}


def _skip_check(site: Site, match: str) -> str | None:
    del match
    for output in site.node.outputs[1:3]:
        if output.uses() or output.is_graph_output():
            return f"its statistics ({output.name!r}) are read"
    return None


def _skip(site: Site, match: str, build: Build) -> Rewritten:
    del match
    node, out = site.node, site.node.outputs[0]
    total = build.op("Add", list(node.inputs[:2]), like=out)
    bias = site.input(4)
    if bias is not None:
        total = build.op("Add", [total, bias], like=out)
    epsilon = node.attributes.get_float("epsilon", _SKIP_EPSILON)
    inputs = [total, site.input(2), site.input(3)]
    inputs = inputs if inputs[2] is not None else inputs[:2]
    normal = build.op(
        "LayerNormalization", inputs, {"axis": -1, "epsilon": float(epsilon)}, like=out
    )
    rewritten = {out: normal}
    if len(node.outputs) > 3 and (node.outputs[3].uses() or node.outputs[3].is_graph_output()):
        rewritten[node.outputs[3]] = total
    return rewritten


RULES: tuple[Rule[Any], ...] = (
    Rule(
        "standard-activation",
        ("com.microsoft.FusedConv", "com.microsoft.FusedGemm"),
        _activation,
        None,
        _apart,
    ),
    Rule(
        "standard-gelu",
        ("com.microsoft.BiasGelu", "com.microsoft.FastGelu"),
        _anything,
        None,
        _bias_gelu,
        opset=20,
    ),
    Rule("standard-quick-gelu", ("com.microsoft.QuickGelu",), _anything, _has_type, _quick_gelu),
    Rule("standard-matmul", ("com.microsoft.FusedMatMul",), _anything, _product_check, _product),
    Rule(
        "standard-skip-norm",
        ("com.microsoft.SkipLayerNormalization",),
        _anything,
        _skip_check,
        _skip,
        opset=17,
    ),
)

STANDARD_OPERATORS = RulePass("standard-operators", __doc__, RULES)
