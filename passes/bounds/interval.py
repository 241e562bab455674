"""Intervals that the elements of a mask are known to lie in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

# Larger constants are no masks, and take long to look at.
_MOST_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Bounds:
    """What the elements of a tensor may be.

    Attributes:
        low: No finite element is lower.
        high: No element is higher.
        infinite: Whether an element may be -inf.
        empty_rows: Whether all elements of a row may be.
    """

    low: float
    high: float
    infinite: bool = False
    empty_rows: bool = False

    def joined(self, other: Bounds) -> Bounds:
        """Return the bounds of a tensor whose elements come from either."""
        infinite = self.infinite or other.infinite
        return Bounds(min(self.low, other.low), max(self.high, other.high), infinite, infinite)

    def plus(self, other: Bounds) -> Bounds:
        """Return the bounds of the sum."""
        empty = self.empty_rows or other.empty_rows or (self.infinite and other.infinite)
        return Bounds(
            self.low + other.low,
            self.high + other.high,
            self.infinite or other.infinite,
            empty,
        )

    def times(self, other: Bounds) -> Bounds | None:
        """Return the bounds of the product, of finite numbers only."""
        if self.infinite or other.infinite:
            return None
        corners = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Bounds(min(corners), max(corners))

    def scattered(self) -> Bounds:
        """Return the bounds when elements move between rows, or leave them."""
        return Bounds(self.low, self.high, self.infinite, self.infinite)


def within(found: Bounds, dtype: ir.DataType | None) -> Bounds | None:
    """Return `found` in numbers of `dtype`, or None when one within it might overflow."""
    if dtype == ir.DataType.BOOL:
        return found
    if dtype is None or dtype == ir.DataType.STRING:
        return None
    least, most = float(dtype.min), float(dtype.max)
    if not dtype.is_floating_point():
        return found if least <= found.low and found.high <= most else None
    # What is nearer to the largest number than half of its last place is rounded to it.
    reach = most * (1 + float(dtype.eps) / 4)
    if found.high > reach or found.low < -reach:
        return None
    # Rounding keeps the order: what lies between two numbers lies between the two rounded.
    ends = np.clip(np.array([found.low, found.high]), least, most).astype(dtype.numpy())
    return replace(found, low=float(ends[0]), high=float(ends[1]))


def of_constant(tensor: ir.TensorProtocol, *, first: bool = False) -> Bounds | None:
    """Return the bounds of a constant, or of the first elements of its rows; None for NaN."""
    if tensor.dtype == ir.DataType.STRING or not 0 < tensor.size <= _MOST_ELEMENTS:
        return None
    array = tensor.numpy().astype(np.float64)
    if first and array.ndim:
        array = array[..., :1]
    finite = np.isfinite(array)
    if np.isnan(array).any() or (array == np.inf).any():
        return None
    if not finite.any():
        return Bounds(0.0, 0.0, infinite=True, empty_rows=True)
    rows = finite if finite.ndim else finite.reshape(1)
    low, high = float(array[finite].min()), float(array[finite].max())
    return Bounds(low, high, not finite.all(), not bool(rows.any(axis=-1).all()))
