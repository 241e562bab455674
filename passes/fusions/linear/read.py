"""Linear layers as exporters write them: `x @ W + b`.

    MatMul(x, W)            [.., K] @ [K, N]
    Add(MatMul(x, W), b)    the bias on either side
    Gemm(x, W, b)           [M, K] @ [K, N], or W^T stored as [N, K] with transB=1

W and b are constants; b is one number, or one row: every dimension but the last is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.constants import constant
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.site import Site, commuted

Array = np.ndarray[Any, Any]

FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
)

# Where a product of two weights keeps its digits. A weight in half precision that is multiplied
# by something else is rounded once more, to eleven bits or fewer.
WIDE = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})

# Sizes of factors whose product with a weight stays in the range of float32.
SMALLEST, LARGEST = 2.0**-40, 2.0**40

# Gemm takes its bias by broadcasting, and no bias at all, since this opset.
OPSET = 11

# A copy of a row of numbers is worth a node; a copy of a matrix is not.
_SMALL_BYTES = 1 << 14


@dataclass(frozen=True)
class Linear:
    """A linear layer with constant weights.

    Attributes:
        product: The MatMul or Gemm.
        add: The Add of the bias, where it is a node of its own.
        input: `x`.
        weight: `W`, of rank 2.
        bias: `b`, or None.
    """

    product: ir.Node
    add: ir.Node | None
    input: ir.Value
    weight: ir.Value
    bias: ir.Value | None

    @property
    def gemm(self) -> bool:
        """Whether the product is a Gemm, and so all of rank 2."""
        return self.product.op_type == "Gemm"

    @property
    def transposed(self) -> bool:
        """Whether the weight is stored as [N, K]."""
        return self.gemm and bool(self.product.attributes.get_int("transB", 0))

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """The nodes, in order."""
        return (self.product,) if self.add is None else (self.product, self.add)

    @property
    def output(self) -> ir.Value:
        """What the layer computes."""
        return self.nodes[-1].outputs[0]

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The weight as it is stored."""
        return known_tensor(self.weight)

    @property
    def sizes(self) -> tuple[int, int]:
        """K and N."""
        first, second = (int(size) for size in self.tensor.shape.numpy())
        return (second, first) if self.transposed else (first, second)


def no_floats(site: Site) -> str | None:
    """Return why the node computes no numbers that a product could take, or None."""
    value = site.node.outputs[0]
    if site.facts.dtype(value) in FLOATS:
        return None
    return f"{value.name!r} is no tensor of floating-point numbers"


def extreme(factor: float | None) -> str | None:
    """Return why a product with `factor` may leave the range of float32, or None."""
    if factor is not None and SMALLEST <= abs(factor) <= LARGEST:
        return None
    return f"the factor {factor} is 0, not finite, or of an extreme size"


def known_tensor(value: ir.Value) -> ir.TensorProtocol:
    """Return the tensor of a value that was found to be a constant."""
    tensor = constant(value)
    assert tensor is not None
    return tensor


def read_product(site: Site, value: ir.Value | None) -> Linear | None:
    """Return the linear layer whose MatMul or Gemm computes `value`."""
    node = site.producer(value, "MatMul", "Gemm")
    if node is None or len(node.inputs) < 2 or node.inputs[0] is None or node.inputs[1] is None:
        return None
    tensor = site.tensor(node.inputs[1])
    if tensor is None or tensor.dtype not in FLOATS or len(tensor.shape) != 2 or not tensor.size:
        return None
    found = Linear(node, None, node.inputs[0], node.inputs[1], None)
    if node.op_type == "MatMul":
        return found if (site.facts.rank(found.input) or 0) >= 1 else None
    if not plain_gemm(node):
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and not is_row(site, bias, found.sizes[1], 2):
        return None
    return Linear(node, None, found.input, found.weight, bias)


def plain_gemm(node: ir.Node) -> bool:
    """Whether a Gemm multiplies rows by its second input, without factors."""
    attributes = node.attributes
    factors = (attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0))
    return factors == (1.0, 1.0) and not attributes.get_int("transA", 0)


def read_linear(site: Site, value: ir.Value | None) -> Linear | None:
    """Return the linear layer that computes `value`, with its bias."""
    add = site.producer(value, "Add")
    if add is None:
        return read_product(site, value)
    for left, right in commuted(add):
        found = read_product(site, left)
        if found is None or found.bias is not None:
            continue
        rank = site.facts.rank(left)
        if rank is not None and is_row(site, right, found.sizes[1], rank):
            return Linear(found.product, add, found.input, found.weight, right)
    return None


def is_row(site: Site, value: ir.Value | None, width: int, rank: int) -> bool:
    """Whether `value` is a constant row of `width` numbers, or one number, of at most `rank`."""
    tensor = site.tensor(value)
    if tensor is None or tensor.dtype not in FLOATS:
        return False
    dims = [int(size) for size in tensor.shape.numpy()]
    if len(dims) > rank or any(size != 1 for size in dims[:-1]):
        return False
    return not dims or dims[-1] in (1, width)


def wide_row(array: Array, width: int) -> Array:
    """Return a constant of `is_row` as an array of shape [width]."""
    return np.broadcast_to(array.reshape(-1), (width,))


def is_extended(site: Site) -> bool:
    """Whether the node is a MatMul whose bias is added by the only node that reads it.

    A rule then waits for that Add, to see the layer as a whole.
    """
    output = site.node.outputs[0]
    if site.node.op_type == "Add" or output.is_graph_output():
        return False
    readers = [use.node for use in output.uses()]
    if len(readers) != 1 or readers[0].graph is not site.node.graph:
        return False
    found = read_linear(site, readers[0].outputs[0])
    return found is not None and found.product is site.node and found.add is readers[0]


def read_outside(site: Site, layer: Linear) -> str | None:
    """Return who else reads the layer before its bias, or its weight, or None."""
    if layer.add is not None:
        reason = site.read_elsewhere(layer.product.outputs[0], layer.nodes)
        if reason is not None:
            return reason
    reason = stored_twice(site, layer.weight, layer.nodes)
    if reason is None and layer.bias is not None:
        return stored_twice(site, layer.bias, layer.nodes)
    return reason


def stored_twice(site: Site, weight: ir.Value, inside: tuple[ir.Node, ...]) -> str | None:
    """Return why a changed copy of `weight` would be stored beside it, or None."""
    tensor = known_tensor(weight)
    if len(tensor.shape) <= 1 and tensor.nbytes <= _SMALL_BYTES:
        return None
    reason = site.read_elsewhere(weight, inside)
    return None if reason is None else f"the weight would be stored twice: {reason}"


def emit(
    build: Build, layer: Linear, x: ir.Value, weight: ir.Value, bias: ir.Value | None
) -> ir.Value:
    """Make the nodes of `layer` with another input, weight of the same sizes, or bias."""
    return emit_product(
        build, x, weight, bias, gemm=layer.gemm, transposed=layer.transposed, like=layer.output
    )


def emit_product(
    build: Build,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None,
    *,
    gemm: bool,
    transposed: bool = False,
    like: ir.Value | None,
) -> ir.Value:
    """Make a linear layer: one Gemm, or a MatMul and an Add."""
    if gemm:
        inputs = [x, weight] if bias is None else [x, weight, bias]
        return build.op("Gemm", inputs, {"transB": 1} if transposed else None, like=like)
    product = build.op("MatMul", [x, weight], like=like)
    return product if bias is None else build.op("Add", [product, bias], like=like)
