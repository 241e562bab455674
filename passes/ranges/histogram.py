"""How often each size of number occurs in a tensor, in bins that are the same for all data.

A float32 falls into the bin of its upper 16 bits: the sign, the exponent and 7 bits of the
mantissa. A bin is 1/128 to 1/256 of its own value wide, whatever the scale of the data, so no range
has to be known beforehand, and counts are whole numbers: adding up two histograms is exact, in
any order, for any split of the data.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 1 << 16

_SIGN = 1 << 15
# From here on a bin holds infinities and numbers that are none.
_INFINITE = 0x7F80
_UPPER = 1 if sys.byteorder == "little" else 0

Floats = np.ndarray[Any, np.dtype[np.float64]]
Counts = np.ndarray[Any, np.dtype[np.int64]]


def count(array: np.ndarray[Any, Any]) -> Counts:
    """Return how many elements fall into each of the `BINS` bins.

    Args:
        array: Any shape; other types than float32 are converted to it.
    """
    counts = np.zeros(BINS, np.int64)
    add_counts(counts, array)
    return counts


def add_counts(counts: Counts, array: np.ndarray[Any, Any]) -> None:
    """Add how many elements of `array` fall into each bin to `counts`, in place."""
    flat = np.ascontiguousarray(array, dtype=np.float32).reshape(-1)
    found = np.bincount(flat.view(np.uint16)[_UPPER::2])
    counts[: len(found)] += found


@dataclass(frozen=True)
class Distribution:
    """The bins that occur, in the order of their values.

    Attributes:
        low: The smallest value of each bin.
        high: The largest value of each bin.
        counts: How many elements are in it.
    """

    low: Floats
    high: Floats
    counts: Counts

    @property
    def middle(self) -> Floats:
        """The value that stands for each bin."""
        return (self.low + self.high) / 2


def distribution(counts: Counts) -> Distribution:
    """Sort the bins of a histogram of finite numbers by their values."""
    positive = np.flatnonzero(counts[:_INFINITE])
    negative = np.flatnonzero(counts[_SIGN : _SIGN | _INFINITE])[::-1]
    low = np.concatenate((-_ceiling(negative), _floor(positive)))
    high = np.concatenate((-_floor(negative), _ceiling(positive)))
    found = np.concatenate((counts[_SIGN + negative], counts[positive]))
    return Distribution(low, high, found)


def _floor(bins: np.ndarray[Any, Any]) -> Floats:
    """Return the smallest magnitude in each bin."""
    bits = bins.astype(np.uint32) << np.uint32(16)
    return bits.view(np.float32).astype(np.float64)


def _ceiling(bins: np.ndarray[Any, Any]) -> Floats:
    """Return the largest magnitude in each bin."""
    bits = (bins.astype(np.uint32) << np.uint32(16)) | np.uint32(0xFFFF)
    return bits.view(np.float32).astype(np.float64)
