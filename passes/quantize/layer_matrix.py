"""Convolutions and linear layers as products of matrices, which is how rounding looks at them.

A linear layer computes Y = X W with X `[..., K]` and W `[K, N]`. A convolution without groups does
too: each position of its output reads one patch of the input, a row of X with K = C * kernel
elements, and W has a column for each filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.constants import constant

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerMatrix:
    """How the weight of a node is a matrix W `[K, N]` with one column for each output channel.

    Attributes:
        node: Conv, ConvTranspose, MatMul or Gemm, with a constant weight.
        axis: Of the stored weight: the output channels.
        shape: Of the stored weight.
    """

    node: ir.Node
    axis: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, node: ir.Node) -> LayerMatrix:
        """Return the matrix of the weight of `node`."""
        tensor = constant(node.inputs[1])
        assert tensor is not None
        turned = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
        axis = 0 if node.op_type == "Conv" or turned else 1
        return cls(node, axis, tuple(int(size) for size in tensor.shape.numpy()))

    @property
    def name(self) -> str:
        """The layer's name in a plan."""
        return str(self.node.outputs[0].name)

    @property
    def input_name(self) -> str:
        """The tensor that X is made of."""
        value = self.node.inputs[0]
        assert value is not None
        return value.name or ""

    @property
    def rows(self) -> int:
        """K, the length of a row of X."""
        return math.prod(self.shape) // self.columns

    @property
    def columns(self) -> int:
        """N, the number of outputs."""
        return self.shape[self.axis]

    def weight(self) -> Array:
        """Return W, float32 `[K, N]`."""
        tensor = constant(self.node.inputs[1])
        assert tensor is not None
        first = np.moveaxis(np.asarray(tensor.numpy()), self.axis, 0)
        return np.ascontiguousarray(first.reshape(self.columns, -1).T)

    def stored(self, matrix: Array) -> Array:
        """Return a matrix like W in the layout of the node's own weight."""
        others = [size for axis, size in enumerate(self.shape) if axis != self.axis]
        first = matrix.T.reshape(self.columns, *others)
        return np.ascontiguousarray(np.moveaxis(first, 0, self.axis))

    def inputs(self, array: Array, most: int = 0) -> Array:
        """Return X, float32 `[rows, K]`, made of the node's input.

        Args:
            array: What the node reads.
            most: At most so many rows, evenly spread; 0 for all.
        """
        if self.node.op_type == "Conv":
            return _patches(self.node, array, self.shape[2:], most)
        found = array.reshape(-1, array.shape[-1])
        return np.asarray(found[_spread(len(found), most)], dtype=np.float32)


def layer_matrix(node: ir.Node) -> LayerMatrix | None:
    """Return how `node` is one product X W, or None when it is not one of these.

    Case 1: Conv with one group and explicit pads.
    Case 2: MatMul by a constant `[K, N]`.
    Case 3: Gemm by a constant, its first input as it is.
    """
    tensor = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.domain or tensor is None or tensor.dtype != ir.DataType.FLOAT or not tensor.size:
        return None
    attributes = node.attributes
    if node.op_type == "Conv":
        plain = attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        fits = plain and attributes.get_int("group", 1) == 1
    else:
        product = node.op_type in {"MatMul", "Gemm"} and not attributes.get_int("transA", 0)
        fits = product and len(tensor.shape) == 2
    return LayerMatrix.of(node) if fits else None


def _spread(count: int, most: int) -> Array | slice:
    """Return indices of at most `most` of `count` rows."""
    if not most or count <= most:
        return slice(None)
    return np.linspace(0, count - 1, most).astype(np.int64)


def _patches(node: ir.Node, array: Array, kernel: Sequence[int], most: int) -> Array:
    """Return the patches that a convolution reads, `[positions, C * kernel]`."""
    spatial = len(kernel)
    ones = [1] * spatial
    strides = list(node.attributes.get_ints("strides") or ones)
    dilations = list(node.attributes.get_ints("dilations") or ones)
    pads = list(node.attributes.get_ints("pads") or [0] * 2 * spatial)
    around = [(0, 0), (0, 0), *zip(pads[:spatial], pads[spatial:], strict=True)]
    padded = np.pad(array, around)
    extents = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    axes = tuple(range(2, 2 + spatial))
    # The shape is N, C, then the positions, then the extents.
    windows = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=axes)
    at = (slice(None), slice(None), *(slice(None, None, step) for step in strides))
    inside = tuple(slice(None, None, step) for step in dilations)
    windows = windows[at + inside]
    places = np.indices((windows.shape[0], *windows.shape[2 : 2 + spatial])).reshape(
        1 + spatial, -1
    )
    places = places[:, _spread(places.shape[1], most)]
    # Advanced indices on both sides of the channels come first: [positions, C, *kernel].
    picked = windows[(places[0], slice(None), *places[1:])]
    return np.asarray(picked.reshape(len(picked), -1), dtype=np.float32)
