"""How numbers become integers, once: what measures a rounding and what carries it out ask here.

    q = clip(rint(x / s) + z),      x' = (q - z) * s

These are QuantizeLinear and DequantizeLinear of ONNX, and all of it is float32, as in the engines:
what is measured here has the bits of what an artifact computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Floats = np.ndarray[Any, np.dtype[np.float64]]

# The inverse of a smaller scale may be no normal float32, and engines flush such numbers to 0.
SMALLEST_SCALE = 2.0**-125
# The parts of the largest weight that are tried as the end of the integer range.
_PARTS = np.linspace(1.0, 0.7, 13)


@dataclass(frozen=True)
class Scale:
    """How the elements of an activation become integers of 8 bits.

    Attributes:
        step: s.
        zero: z.
        signed: Whether the integers are int8, and not uint8.
    """

    step: np.float32
    zero: int
    signed: bool

    def parts(self) -> tuple[Array, Array]:
        """Return s and z as the operators take them: float32 `[]`, and int8 or uint8 `[]`."""
        return np.array(self.step), np.array(self.zero, np.int8 if self.signed else np.uint8)

    def rounded(self, array: Array) -> Array:
        """Return x' of finite float32 elements."""
        lowest = -128 if self.signed else 0
        with np.errstate(over="ignore"):
            levels = np.rint(array / self.step) + np.float32(self.zero)
            kept = np.clip(levels, lowest, lowest + 255) - np.float32(self.zero)
            return np.asarray(kept * self.step, dtype=np.float32)


def scale_for(low: float, high: float, *, symmetric: bool) -> Scale:
    """Return the scale that covers a range which holds 0.

    Args:
        low: At most 0.
        high: At least 0.
        symmetric: Zero point 0 in int8; otherwise uint8.
    """
    step = max(-low, high) / 127.0 if symmetric else (high - low) / 255.0
    if step < SMALLEST_SCALE:
        return Scale(np.float32(1.0), 0, symmetric)
    step = float(np.float32(step))
    zero = 0 if symmetric else int(np.clip(np.rint(-low / step), 0, 255))
    return Scale(np.float32(step), zero, symmetric)


@dataclass(frozen=True, eq=False)
class RoundedWeight:
    """Weights as integers with their scales: `values * scale` is what the engine computes with.

    Attributes:
        values: int8 `[K, N]`.
        scale: float32 `[blocks, N]`: one for each column, or for each column and block of rows.
        block: Rows of a block; K where a column has one scale.
    """

    values: np.ndarray[Any, np.dtype[np.int8]]
    scale: np.ndarray[Any, np.dtype[np.float32]]
    block: int

    def dequantized(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the weights that the integers stand for, float32 `[K, N]`."""
        rows = spread(self.scale, len(self.values), self.block)
        with np.errstate(over="ignore"):
            return np.asarray(self.values.astype(np.float32) * rows, dtype=np.float32)


def largest_level(bits: int) -> int:
    """Return the largest integer of a weight; the smallest is its negative."""
    return (1 << (bits - 1)) - 1


def symmetric_scale(largest: Array, bits: int = 8) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the scales whose integer range ends at given magnitudes; 1 for what is nearly 0."""
    return _exact_scale(largest, bits).astype(np.float32)


def _exact_scale(largest: Array, bits: int) -> Floats:
    scale = largest.astype(np.float64) / largest_level(bits)
    return np.asarray(np.where(scale < SMALLEST_SCALE, 1.0, scale))


def nearest(weight: Array, scale: Array, bits: int = 8) -> Array:
    """Return the integers nearest to `weight / scale`, not yet stored as such.

    Args:
        weight: Of any shape.
        scale: Broadcasts to it.
        bits: 8 or 4.
    """
    limit = largest_level(bits)
    return np.asarray(np.clip(np.rint(weight / scale), -limit, limit))


def column_scales(
    weight: Array, importance: Floats | None = None, *, bits: int = 8, block: int = 0
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return symmetric scales for the columns of `weight`, by block of rows if asked.

    Args:
        weight: `[K, N]`.
        importance: The diagonal of H of `leptonc.passes.quantize.gptq`, `[K]`: the scales then
            lose least to rounding and clipping together; without it they reach the largest weight.
        bits: 8 or 4.
        block: Rows that share a scale; 0 for all.

    Returns:
        float32 `[ceil(K / block), N]`, each above 0.
    """
    rows = block or len(weight)
    parts = [
        _scales(
            weight[start : start + rows],
            None if importance is None else importance[start : start + rows],
            bits,
        )
        for start in range(0, len(weight), rows)
    ]
    return np.stack(parts)


def _scales(weight: Array, importance: Floats | None, bits: int) -> Array:
    largest = np.abs(weight).max(axis=0)
    if importance is None:
        return symmetric_scale(largest, bits)
    # The candidates are compared in float64; the one that is found is rounded once.
    exact, ends = weight.astype(np.float64), largest.astype(np.float64)
    best, found = np.full(ends.shape, np.inf), ends
    for part in _PARTS:
        scale = _exact_scale(part * ends, bits)
        lost = exact - nearest(exact, scale, bits) * scale
        error = importance @ (lost * lost)
        better = error < best
        best, found = np.where(better, error, best), np.where(better, scale, found)
    return np.asarray(found, dtype=np.float32)


def round_nearest(weight: Array, scale: Array, *, bits: int = 8, block: int = 0) -> RoundedWeight:
    """Round each weight to the nearest multiple of its scale.

    Args:
        weight: `[K, N]`.
        scale: From `column_scales`.
        bits: 8 or 4.
        block: Rows that share a scale; 0 for all.
    """
    rows = block or len(weight)
    values = nearest(weight, spread(scale, len(weight), rows), bits)
    return RoundedWeight(values.astype(np.int8), scale.astype(np.float32), rows)


def spread(scale: Array, rows: int, block: int) -> Array:
    """Return scales `[blocks, N]` as `[K, N]`, one for each of `rows`."""
    return np.repeat(scale, block, axis=0)[:rows]


def integer_bias(bias: Array, unit: Array) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return a bias `[N]` in units of `unit`, INT32."""
    return np.rint(bias.astype(np.float64) / unit.astype(np.float64)).astype(np.int32)
