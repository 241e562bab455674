"""Run a graph over calibration samples and keep what rounding and smoothing need of each layer.

What is kept is of bounded size, whatever the number of samples: sums, and a few rows. Layers are
looked at in groups whose sums fit into memory together; each group is one run over the samples.

Every fourth sample is held out: it adds nothing to the sums, and gives the rows to try things on.
What fits the sums too closely shows there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.passes.quantize.layer_matrix import LayerMatrix
from leptonc.runtime.arrays import Arrays
from leptonc.runtime.errors import InputError

# The sums of a group, in bytes.
GROUP_BYTES = 512 << 20
# Rows of X that one sample adds to the sums.
ROWS_OF_SAMPLE = 512
# Rows of X that are held out, at most, and the part of the samples that they come from.
ROWS_KEPT = 512
HELD_OUT_EVERY = 4

Floats = np.ndarray[Any, np.dtype[np.float64]]
Array = np.ndarray[Any, Any]
Samples = Callable[[], Iterator[Mapping[str, np.ndarray]]]


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """What the inputs X `[rows, K]` of a layer are like.

    Attributes:
        rows: How many were added up.
        energy: The sum of the squares in each column of X, `[K]`: the diagonal of X^T X.
        mean: The mean row, `[K]`.
        largest: The largest magnitude in each column of the rows that were added up, `[K]`.
        largest_of_all: The same of all rows, `[K]`.
        kept: Rows that were held out, float32 `[rows, K]`.
        hessian: X^T X, `[K, K]`; None where it was not asked for.
    """

    rows: int
    energy: Floats
    mean: Floats
    largest: Floats
    largest_of_all: Floats
    kept: np.ndarray[Any, np.dtype[np.float32]]
    hessian: Floats | None = None


def statistics_in_groups(
    model: ir.Model,
    layers: Sequence[LayerMatrix],
    samples: Samples,
    count: int,
    *,
    hessians: bool = False,
) -> Iterator[tuple[LayerMatrix, LayerStatistics]]:
    """Yield each layer with its statistics, in the order of `layers`.

    Args:
        model: The graph; unchanged between the groups but for weights, if the caller changes them.
        layers: Of the main graph of `model`.
        samples: Gives the same samples each time it is called.
        count: How many they are.
        hessians: Also add up X^T X, which takes `8 K^2` bytes and much of the time.

    Raises:
        InputError: There are no samples.
    """
    for group in _groups(layers, hessians):
        names = sorted({layer.input_name for layer in group})
        produced = {value.name for node in model.graph for value in node.outputs}
        outputs = {value.name for value in model.graph.outputs}
        inner = [name for name in names if name in produced - outputs]
        runner = GraphRunner(model, extra_outputs=inner, optimised=True)
        sums = {id(layer): _Sums(layer, count, hessians) for layer in group}
        for sample in samples():
            found: Arrays = {**sample, **runner(sample)}
            for layer in group:
                sums[id(layer)].add(found[layer.input_name])
        for layer in group:
            yield layer, sums.pop(id(layer)).finish()


def _groups(layers: Sequence[LayerMatrix], hessians: bool) -> Iterator[list[LayerMatrix]]:
    group: list[LayerMatrix] = []
    used = 0
    for layer in layers:
        needed = layer.rows * ((layer.rows * 8 if hessians else 24) + ROWS_KEPT * 4)
        if group and used + needed > GROUP_BYTES:
            yield group
            group, used = [], 0
        group.append(layer)
        used += needed
    if group:
        yield group


class _Sums:
    """Adds up the statistics of one layer, sample by sample."""

    def __init__(self, layer: LayerMatrix, samples: int, hessian: bool) -> None:
        self._layer = layer
        self._by_sample = samples >= HELD_OUT_EVERY
        held_out = samples // HELD_OUT_EVERY if self._by_sample else samples
        self._keep = max(1, ROWS_KEPT // max(1, held_out))
        self._hessian = np.zeros((layer.rows, layer.rows)) if hessian else None
        self._energy = np.zeros(layer.rows)
        self._sum = np.zeros(layer.rows)
        self._largest = np.zeros(layer.rows)
        self._rows = 0
        self._kept: list[Array] = []
        self._number = 0

    def add(self, array: Array) -> None:
        found = self._layer.inputs(array, ROWS_OF_SAMPLE)
        self._number += 1
        summed, held_out = self._divided(found)
        if len(held_out):
            places = np.linspace(0, len(held_out) - 1, min(self._keep, len(held_out)))
            self._kept.append(held_out[places.astype(np.int64)])
        if not len(summed):
            return
        if self._hessian is not None:
            self._hessian += summed.T @ summed
        self._energy += np.einsum("rk,rk->k", summed, summed, dtype=np.float64)
        self._sum += summed.sum(axis=0, dtype=np.float64)
        np.maximum(self._largest, np.abs(summed).max(axis=0), out=self._largest)
        self._rows += len(summed)

    def _divided(self, rows: Array) -> tuple[Array, Array]:
        """Return the rows to add up and those to hold out: whole samples, where there are some."""
        if self._by_sample:
            held_out = self._number % HELD_OUT_EVERY == 0
            return (rows[:0], rows) if held_out else (rows, rows[:0])
        if len(rows) < HELD_OUT_EVERY:
            return rows, rows
        last = np.arange(1, len(rows) + 1) % HELD_OUT_EVERY == 0
        return rows[~last], rows[last]

    def finish(self) -> LayerStatistics:
        if not self._rows or not self._kept:
            raise InputError(
                f"no calibration sample reaches the layer {self._layer.node.name!r}",
                fix="give calibration data with at least one sample",
            )
        kept = np.concatenate(self._kept)
        return LayerStatistics(
            self._rows,
            self._energy,
            self._sum / self._rows,
            self._largest,
            np.maximum(self._largest, np.abs(kept).max(axis=0)),
            kept,
            self._hessian,
        )
