"""SmoothQuant: what is hard to round in the inputs of linear layers moves into their weights.

A few channels of X that are much larger than the others make the one scale of X coarse for all of
them. With a[c] the largest magnitude in channel c of X, w[c] that in row c of the weights of all
layers that read X, and a strength from 0 to 1,

    s[c] = a[c]^strength / w[c]^(1 - strength),     X' = X / s,     W' = diag(s) W

(G. Xiao et al., "SmoothQuant", 2022, equation 4), here rounded to powers of two, so that the float
graph keeps its bits. Where one or two channels stand out, it is better to divide those alone. Where X comes from a normalisation or a layer that nobody else reads, 1/s goes
into its constants; elsewhere a Mul divides X for the layers and leaves it to its other readers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.graph.insertion import Insertion
from leptonc.passes.graph.names import Names
from leptonc.passes.graph.structure import count_nodes
from leptonc.passes.pipeline import Context
from leptonc.passes.quantize.layer_matrix import LayerMatrix, layer_matrix
from leptonc.passes.rescale.channels import LARGEST_POWER, find_scalable, scale_channels

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Smoothable:
    """A tensor whose every channel can be divided for the linear layers that read it.

    Attributes:
        tensor: Its name.
        layers: The linear layers that read it, in graph order.
        folds: Whether the division goes into constants that are there, and costs nothing.
    """

    tensor: str
    layers: tuple[LayerMatrix, ...]
    folds: bool


@dataclass(frozen=True)
class Smoothing:
    """By what the channels of one tensor are divided.

    Attributes:
        tensor: Its name.
        powers: For each channel the power of two.
    """

    tensor: str
    powers: tuple[int, ...]


@dataclass(frozen=True)
class Smooth:
    """Divide the inputs of linear layers by channel, and multiply their weights.

    Attributes:
        smoothings: What to do; tensors that are not smoothable are refused with a reason.
    """

    name: ClassVar[str] = "smooth"
    smoothings: tuple[Smoothing, ...] = ()

    def requires(self, model: ir.Model) -> str | None:
        """Return the first tensor that cannot be smoothed, if there is one."""
        found = {each.tensor: each for each in find_smoothable(model)}
        for each in self.smoothings:
            if each.tensor not in found:
                return f"no linear layer reads {each.tensor!r}, or its weight has other readers"
            if len(each.powers) != found[each.tensor].layers[0].rows:
                return (
                    f"{each.tensor!r} has {found[each.tensor].layers[0].rows} channels, not "
                    f"{len(each.powers)}"
                )
        return None

    def run(self, model: ir.Model, _: Context = Context()) -> PassStats:
        """Rewrite the graph; its outputs keep their bits."""
        before = count_nodes(model)
        counts: Counter[str] = Counter()
        insert = Insertion(model.graph, Names(model))
        found = {each.tensor: each for each in find_smoothable(model)}
        scalable = {tensor.name: each for each in find_scalable(model)[0] for tensor in each.inputs}
        for smoothing in self.smoothings:
            if not any(smoothing.powers):
                continue
            if found[smoothing.tensor].folds:
                scale_channels(scalable[smoothing.tensor], smoothing.powers)
                counts["folded"] += 1
            else:
                _insert(found[smoothing.tensor], smoothing.powers, insert)
                counts["inserted"] += 1
        return PassStats(
            name=self.name,
            counts=tuple(sorted(counts.items())),
            nodes_before=before,
            nodes_after=count_nodes(model),
        )


def find_smoothable(model: ir.Model) -> tuple[Smoothable, ...]:
    """Return each tensor of the main graph that can be smoothed, in graph order of its readers."""
    folding = {
        tensor.name: {id(node) for node in each.readers}
        for each in find_scalable(model)[0]
        for tensor in each.inputs
        if len(each.inputs) == 1
    }
    readers: dict[str, list[LayerMatrix]] = {}
    for node in model.graph:
        layer = layer_matrix(node)
        if layer is not None and node.op_type != "Conv" and _owns_weight(node):
            readers.setdefault(layer.input_name, []).append(layer)
    return tuple(
        Smoothable(
            tensor,
            tuple(layers),
            folding.get(tensor) == {id(layer.node) for layer in layers},
        )
        for tensor, layers in readers.items()
    )


def smoothing_powers(largest: Array, weights: Sequence[Array], strength: float) -> Array:
    """Return the powers of two nearest to `s`, int64 `[K]`.

    Args:
        largest: The largest magnitude in each channel of X, `[K]`.
        weights: W of each layer that reads X, `[K, N]`.
        strength: 0 leaves X as it is in effect, 1 makes all its channels equal.
    """
    rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0).astype(np.float64)
    alive = (largest > 0) & (rows > 0)
    exponents = strength * np.log2(np.where(alive, largest, 1.0))
    exponents -= (1.0 - strength) * np.log2(np.where(alive, rows, 1.0))
    # One factor for all channels changes nothing: the middle one stays as it is.
    exponents -= np.median(exponents[alive]) if alive.any() else 0.0
    powers = np.where(alive, np.rint(exponents), 0.0)
    return np.clip(powers, -LARGEST_POWER, LARGEST_POWER).astype(np.int64)


def outlier_powers(largest: Array, part: int) -> Array:
    """Return the powers of two that bring a few large channels down, int64 `[K]`.

    Channels whose largest magnitude is above that of the largest channel divided by `part` are
    divided until they are not; the others, and with them most of the weights, stay as they are.

    Args:
        largest: The largest magnitude in each channel of X, `[K]`.
        part: A power of two.
    """
    limit = float(largest.max()) / part
    if limit == 0.0:
        return np.zeros(len(largest), np.int64)
    above = np.ceil(np.log2(np.maximum(largest, limit) / limit))
    return np.asarray(np.clip(above, 0, LARGEST_POWER).astype(np.int64))


def _owns_weight(node: ir.Node) -> bool:
    weight = node.inputs[1]
    return weight is not None and weight.is_initializer() and len(weight.uses()) == 1


def _insert(found: Smoothable, powers: Sequence[int], insert: Insertion) -> None:
    """Put `X * 2^-powers` before the layers, and multiply their weights by `2^powers`."""
    first = found.layers[0].node
    source = first.inputs[0]
    assert source is not None
    stem = f"{found.tensor}_smoothed"
    rows = np.asarray(powers, dtype=np.int32)
    factor = insert.before(first).constant(np.ldexp(np.float32(1), -rows), f"{stem}_factors")
    output = insert.op("Mul", [source, factor], stem, dtype=source.dtype, shape=source.shape)
    for layer in found.layers:
        layer.node.replace_input_with(0, output)
        weight = layer.node.inputs[1]
        assert weight is not None
        scaled = layer.stored(np.ldexp(layer.weight(), rows[:, None]).astype(np.float32))
        weight.const_value = ir.Tensor(scaled, name=weight.name)
