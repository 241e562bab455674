"""A scale and a shift per channel after a convolution or a linear layer, in its weights.

    BatchNormalization(y) = s*y + t   with s = scale / sqrt(variance + epsilon), t = bias - mean*s
                                      (ONNX BatchNormalization in inference; Ioffe, Szegedy, 2015)
    s * (W*x + b) + t  =  (s*W)*x + (s*b + t)

s and t have one number per output channel, or one for all. W is `[M, C/g, k...]` for Conv, with
the output channels first; `[C, M/g, k...]` for ConvTranspose, where channel m of group i is at
`[:, m - i*M/g]` of the rows of that group; `[K, N]` or, with transB, `[N, K]` for Gemm.

Computed in float64 and rounded to the type of the weights once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.constants import constant
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site, commuted

Array = np.ndarray[Any, Any]

LAYERS = ("Conv", "ConvTranspose", "Gemm")
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class Scaled:
    """A layer, and what its output is multiplied by and shifted by.

    Attributes:
        layer: Conv, ConvTranspose or Gemm.
        scale: `[M]` or `[1]`, float64; None for none.
        shift: The same.
    """

    layer: ir.Node
    scale: Array | None
    shift: Array | None


def _batch_norm(site: Site) -> Scaled | None:
    layer = site.producer(site.input(0), *LAYERS)
    terms = None if layer is None else batch_norm_terms(site)
    return None if layer is None or terms is None else Scaled(layer, *terms)


def batch_norm_terms(site: Site) -> tuple[Array, Array] | None:
    """Return s and t of a BatchNormalization whose statistics are constants."""
    node = site.node
    tensors = [constant(value) for value in node.inputs[1:5]]
    if len(tensors) != 4 or any(tensor is None for tensor in tensors):
        return None
    scale, bias, mean, variance = (
        np.asarray(tensor.numpy(), dtype=np.float64) for tensor in tensors if tensor is not None
    )
    root = np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    with np.errstate(all="ignore"):
        factor = scale / root
        return factor, bias - mean * factor


def training_obstacle(site: Site) -> str | None:
    """Return why a BatchNormalization is not known to be in inference form, or None."""
    node = site.node
    if site.opset < 9:
        return f"opset {site.opset} has another BatchNormalization"
    if node.attributes.get_int("training_mode", 0):
        return "it is in training mode"
    for output in node.outputs[1:]:
        if output.name and (output.is_graph_output() or output.uses()):
            return f"its statistics {output.name!r} are read"
    return None


def _arithmetic(site: Site) -> Scaled | None:
    node = site.node
    for value, other in commuted(node):
        layer = site.producer(value, *LAYERS)
        numbers = None if layer is None else _per_channel(site, layer, other)
        if layer is None or numbers is None:
            continue
        with np.errstate(all="ignore"):
            found = {
                "Mul": (numbers, None),
                "Div": (1.0 / numbers, None),
                "Add": (None, numbers),
                "Sub": (None, -numbers),
            }[node.op_type]
        return Scaled(layer, *found)
    return None


def _per_channel(site: Site, layer: ir.Node, value: ir.Value) -> Array | None:
    """Return a constant that holds one number for all, or one per output channel."""
    tensor, dims = constant(value), site.facts.dims(layer.outputs[0])
    if tensor is None or dims is None or tensor.dtype not in _FLOATS:
        return None
    shape = tuple(int(size) for size in tensor.shape.numpy())
    if len(shape) > len(dims):
        return None
    if tensor.size == 1:
        return np.asarray(tensor.numpy(), dtype=np.float64).reshape(1)
    after = len(dims) - 2
    padded = (1,) * (len(dims) - len(shape)) + shape
    if padded != (1, dims[1], *(1,) * after):
        return None
    return np.asarray(tensor.numpy(), dtype=np.float64).reshape(-1)


def _check(site: Site, match: Scaled) -> str | None:
    layer = match.layer
    if site.node.op_type == "BatchNormalization":
        reason = training_obstacle(site)
        if reason is not None:
            return reason
    weight, bias = constant(layer.inputs[1]), _bias(layer)
    if weight is None or weight.dtype not in _FLOATS:
        return "the weight is no constant of a float type"
    if site.facts.dtype(site.node.outputs[0]) != weight.dtype:
        return "the element types differ"
    if bias is not None and constant(bias) is None:
        return "the bias is no constant"
    if layer.op_type == "Gemm" and _gemm_bias(layer, _channels(layer, weight)) is None:
        return "the third operand of Gemm is not one number per column"
    for numbers in (match.scale, match.shift):
        if numbers is not None and not np.isfinite(numbers).all():
            return "a scale or a shift is not finite"
        if numbers is not None and numbers.size not in (1, _channels(layer, weight)):
            return "there is not one number per output channel"
    if match.scale is not None:
        reason = _read_by_others(layer.inputs[1], layer)
        if reason is not None:
            return reason
    return site.read_elsewhere(layer.outputs[0], (site.node,))


def _read_by_others(weight: ir.Value | None, layer: ir.Node) -> str | None:
    """Return the reason when scaling the weight would store it twice."""
    assert weight is not None
    if weight.is_graph_output():
        return f"the weight {weight.name!r} is an output of the graph"
    for use in weight.uses():
        if use.node is not layer:
            return f"the weight {weight.name!r} is also read by {use.node.name!r}"
    return None


def _bias(layer: ir.Node) -> ir.Value | None:
    return layer.inputs[2] if len(layer.inputs) > 2 else None


def _groups(layer: ir.Node) -> int:
    return layer.attributes.get_int("group", 1)


def _channels(layer: ir.Node, weight: ir.TensorProtocol) -> int:
    shape = [int(size) for size in weight.shape.numpy()]
    if layer.op_type == "Conv":
        return shape[0]
    if layer.op_type == "ConvTranspose":
        return shape[1] * _groups(layer)
    return shape[0] if layer.attributes.get_int("transB", 0) else shape[1]


def _gemm_bias(layer: ir.Node, columns: int) -> Array | None:
    """Return beta*C of a Gemm as `[N]`, or None when it differs from row to row."""
    tensor = constant(_bias(layer))
    if tensor is None:
        return np.zeros(columns) if _bias(layer) is None else None
    shape = tuple(int(size) for size in tensor.shape.numpy())
    if shape not in ((columns,), (1, columns), (1,), (), (1, 1)):
        return None
    beta = layer.attributes.get_float("beta", 1.0)
    return np.broadcast_to(np.asarray(tensor.numpy(), np.float64).reshape(-1) * beta, (columns,))


def _rewrite(site: Site, match: Scaled, build: Build) -> Rewritten:
    layer, out = match.layer, site.node.outputs[0]
    weight = constant(layer.inputs[1])
    assert weight is not None
    channels = _channels(layer, weight)
    scale = np.ones(1) if match.scale is None else match.scale
    if layer.op_type == "Gemm":
        before = _gemm_bias(layer, channels)
    else:
        tensor = constant(_bias(layer))
        before = None if tensor is None else np.asarray(tensor.numpy(), dtype=np.float64)
    new = np.broadcast_to(np.zeros(channels) if before is None else before * scale, (channels,))
    new = new if match.shift is None else new + match.shift
    inputs = [layer.inputs[0], layer.inputs[1]]
    if match.scale is not None:
        inputs[1] = _scaled_weight(build, layer, weight, scale)
    if before is not None or match.shift is not None:
        inputs.append(build.constant(new.astype(weight.numpy().dtype), "bias"))
    attributes = {name: attribute.value for name, attribute in layer.attributes.items()}
    if layer.op_type == "Gemm":
        attributes.pop("beta", None)
    return {out: build.op(layer.op_type, inputs, attributes, like=out)}


def _scaled_weight(
    build: Build, layer: ir.Node, weight: ir.TensorProtocol, scale: Array
) -> ir.Value:
    shape = tuple(int(size) for size in weight.shape.numpy())
    factor = _laid_out(layer, shape, scale)

    def compute(array: Array) -> Array:
        product: Array = array.astype(np.float64).reshape(factor[1]) * factor[0]
        return product.reshape(shape).astype(array.dtype)

    return build.weight([weight], compute, dtype=weight.dtype, shape=shape, stem="weight")


def _laid_out(
    layer: ir.Node, shape: tuple[int, ...], scale: Array
) -> tuple[Array, tuple[int, ...]]:
    """Return the scale so that it broadcasts to the weight, and the shape to give the weight."""
    if layer.op_type == "ConvTranspose" and scale.size > 1:
        groups = _groups(layer)
        seen = (groups, shape[0] // groups, *shape[1:])
        return scale.reshape(groups, 1, shape[1], *(1,) * (len(shape) - 2)), seen
    last = layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0)
    column = scale if last else scale.reshape(-1, *(1,) * (len(shape) - 1))
    return column, shape


RULES = (
    Rule("layer-batch-norm", ("BatchNormalization",), _batch_norm, _check, _rewrite),
    Rule("layer-affine", ("Mul", "Add", "Sub", "Div"), _arithmetic, _check, _rewrite),
)
