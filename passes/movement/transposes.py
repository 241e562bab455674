"""Transposes that cancel across operators which do not care for the order of dimensions.

    Transpose(f(Transpose(x, p)), q)  ->  f(x)     if q undoes p

f is a chain of elementwise operators: of one operand, or of two of which the other is a constant.
A constant of more than one element is transposed with the rest. Every value of the chain is read
only by the next node. A single Transpose is never moved: it only goes where another one goes too.
Exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.constants import constant
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site, operator

_UNARY = (
    *("Abs", "Cast", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"),
    *("HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu"),
    *("Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh"),
    *("com.microsoft.QuickGelu", "com.microsoft.Gelu"),
)
_BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")
_LONGEST = 8
# Larger constants are not worth a transposed copy.
_LARGEST = 1 << 16


@dataclass(frozen=True)
class Cancelled:
    """A chain between two Transposes.

    Attributes:
        source: x.
        order: p.
        chain: The elementwise nodes, first to last.
        first: The Transpose by p.
    """

    source: ir.Value
    order: tuple[int, ...]
    chain: tuple[ir.Node, ...]
    first: ir.Node


def _pattern(site: Site) -> Cancelled | None:
    order = site.attribute_ints("perm")
    if order is None:
        return None
    chain: list[ir.Node] = []
    value = site.input(0)
    while len(chain) <= _LONGEST:
        node = site.producer(value, "Transpose", *_UNARY, *_BINARY)
        if node is None:
            return None
        if node.op_type == "Transpose":
            break
        chain.append(node)
        value = _path(node)
    else:
        return None
    first = node.attributes.get_ints("perm")
    source = node.inputs[0]
    if not chain or first is None or source is None or len(first) != len(order):
        return None
    if [first[axis] for axis in order] != list(range(len(order))):
        return None
    return Cancelled(source, tuple(first), tuple(reversed(chain)), node)


def _path(node: ir.Node) -> ir.Value | None:
    """Return the operand of an elementwise node that is no constant."""
    if operator(node) in _UNARY:
        return node.inputs[0]
    others = [value for value in node.inputs if value is not None and constant(value) is None]
    return others[0] if len(others) == 1 else None


def _check(site: Site, match: Cancelled) -> str | None:
    rank = len(match.order)
    for node in match.chain:
        for value in node.inputs:
            tensor = constant(value)
            if tensor is not None and (len(tensor.shape) > rank or tensor.size > _LARGEST):
                return f"the constant {value.name!r} is too large" if value else None
        reason = site.read_elsewhere(node.outputs[0], (*match.chain, site.node))
        if reason is not None:
            return reason
    return site.read_elsewhere(match.first.outputs[0], match.chain)


def _rewrite(site: Site, match: Cancelled, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    current = match.source
    back = [match.order.index(axis) for axis in range(len(match.order))]
    for node in match.chain:
        path = _path(node)
        inputs = [current if value is path else _moved(build, value, back) for value in node.inputs]
        last = node is match.chain[-1]
        current = build.again(node, inputs, like=out if last else None)
    return {out: current}


def _moved(build: Build, value: ir.Value | None, back: list[int]) -> ir.Value | None:
    tensor = constant(value)
    if tensor is None or tensor.size == 1 or value is None:
        return value
    array = tensor.numpy()
    full = array.reshape((1,) * (len(back) - array.ndim) + array.shape)
    return build.constant(np.ascontiguousarray(full.transpose(back)), "transposed")


RULES = (Rule("transposes-cancel", ("Transpose",), _pattern, _check, _rewrite),)
