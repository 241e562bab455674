"""Convolutions and linear layers as products of matrices, which is how rounding looks at them.

A linear layer computes Y = X W with X `[..., K]` and W `[K, N]`. A convolution without groups does
too: each position of its output reads one patch of the input, a row of X with K = C * kernel
elements, and W has a column for each filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.constants import constant

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerMatrix:
    """How one node is a product of matrices.

    Attributes:
        node: A Conv without groups, a MatMul or a Gemm whose second input is a constant.
        rows: K, the length of a row of X.
        columns: N, the number of outputs.
    """

    node: ir.Node
    rows: int
    columns: int

    @property
    def input_name(self) -> str:
        """The tensor that X is made of."""
        value = self.node.inputs[0]
        assert value is not None
        return value.name or ""

    def weight(self) -> Array:
        """Return W, float32 `[K, N]`."""
        return self._from_stored(_stored(self.node))

    def stored(self, matrix: Array) -> Array:
        """Return a matrix like W in the layout of the node's own weight."""
        shape = _stored(self.node).shape
        if self.node.op_type == "Conv":
            return np.ascontiguousarray(matrix.T).reshape(shape)
        return np.ascontiguousarray(matrix.T if self._transposed else matrix)

    def inputs(self, array: Array, most: int = 0) -> Array:
        """Return X, float32 `[rows, K]`, made of the node's input.

        Args:
            array: What the node reads.
            most: At most so many rows, evenly spread; 0 for all.
        """
        if self.node.op_type == "Conv":
            return _patches(self.node, array, _stored(self.node).shape[2:], most)
        found = array.reshape(-1, array.shape[-1])
        return np.asarray(found[_spread(len(found), most)], dtype=np.float32)

    @property
    def _transposed(self) -> bool:
        return self.node.op_type == "Gemm" and bool(self.node.attributes.get_int("transB", 0))

    def _from_stored(self, array: Array) -> Array:
        if self.node.op_type == "Conv":
            return np.ascontiguousarray(array.reshape(array.shape[0], -1).T)
        return np.ascontiguousarray(array.T if self._transposed else array)


def layer_matrix(node: ir.Node) -> LayerMatrix | None:
    """Return how `node` is a product of matrices, or None when it is not one of these.

    Case 1: Conv with one group and explicit pads.
    Case 2: MatMul by a constant `[K, N]`.
    Case 3: Gemm by a constant, its first input as it is.
    """
    tensor = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.domain or tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    shape = [int(size) for size in tensor.shape.numpy()]
    if 0 in shape:
        return None
    if node.op_type == "Conv":
        plain = node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        if node.attributes.get_int("group", 1) != 1 or not plain:
            return None
        return LayerMatrix(node, int(np.prod(shape[1:])), shape[0])
    if len(shape) != 2:
        return None
    if node.op_type == "MatMul":
        return LayerMatrix(node, shape[0], shape[1])
    if node.op_type == "Gemm" and not node.attributes.get_int("transA", 0):
        turned = bool(node.attributes.get_int("transB", 0))
        return LayerMatrix(node, shape[turned], shape[not turned])
    return None


def _stored(node: ir.Node) -> Array:
    tensor = constant(node.inputs[1])
    assert tensor is not None
    return np.asarray(tensor.numpy())


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
