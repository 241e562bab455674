"""What was observed of one tensor, in a form that adds up exactly.

Counts are whole numbers, and the sums behind `mean_bounds` are kept as whole numbers too (each
float32 is a multiple of 2^-149), so the order of the samples, their split over machines and the
size of a batch leave no trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from leptonc.passes.ranges.histogram import Counts, add_counts, count

Channels = np.ndarray[Any, np.dtype[np.float32]]

# Every float32 is a whole multiple of this part of one.
_UNIT_BITS = 149


@dataclass(frozen=True, eq=False)
class TensorRange:
    """What was observed of one tensor.

    Attributes:
        samples: How many samples were observed.
        minimum: The smallest element of all.
        maximum: The largest element of all.
        sum_minimum: The sum over the samples of their smallest elements, in units of 2^-149.
        sum_maximum: The same of their largest.
        counts: The histogram, int64 `[BINS]`.
        channels: The largest magnitude in each input channel of the linear layer or convolution
            that reads the tensor, float32 `[C]`; None where nothing of the kind reads it.
    """

    samples: int
    minimum: float
    maximum: float
    sum_minimum: int
    sum_maximum: int
    counts: Counts
    channels: Channels | None = None

    @property
    def mean_bounds(self) -> tuple[float, float]:
        """The mean of the smallest and of the largest elements of the samples."""
        # Python divides whole numbers of any size and rounds once.
        unit = self.samples << _UNIT_BITS
        return self.sum_minimum / unit, self.sum_maximum / unit

    @property
    def constant(self) -> bool:
        """Whether every element that was seen is the same."""
        return self.minimum == self.maximum

    def plus(self, other: TensorRange) -> TensorRange:
        """Return what was observed on both parts of the data.

        Raises:
            ValueError: One of the two has other channels.
        """
        return TensorRange(
            self.samples + other.samples,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.sum_minimum + other.sum_minimum,
            self.sum_maximum + other.sum_maximum,
            self.counts + other.counts,
            _larger(self.channels, other.channels),
        )


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest element of a tensor in one sample.

    Attributes:
        low: The smallest.
        high: The largest.
        channels: The largest magnitude for each index of the channel axis, if it has one.
    """

    low: float
    high: float
    channels: Channels | None = None


def find_bounds(array: np.ndarray[Any, Any], channel_axis: int | None = None) -> Bounds:
    """Return the bounds of a tensor.

    Args:
        array: Of a float type, any shape.
        channel_axis: The axis to keep a largest magnitude for each index of, or None.

    Raises:
        ValueError: It holds an infinity or a NaN, or nothing.
    """
    if not array.size:
        raise ValueError("is empty")
    channels = None
    if channel_axis is None:
        low, high = array.min(), array.max()
    else:
        axis = channel_axis % array.ndim
        others = tuple(index for index in range(array.ndim) if index != axis)
        lows, highs = array.min(axis=others), array.max(axis=others)
        low, high = lows.min(), highs.max()
        channels = np.maximum(highs, -lows).astype(np.float32) + np.float32(0)
    if not (np.isfinite(low) and np.isfinite(high)):
        # Both minimum and maximum of what holds a NaN are NaN.
        raise ValueError("holds " + ("NaN" if np.isnan(low) else "an infinity"))
    # Adding 0 makes a plain 0 of a negative one, which equals it but is spelled otherwise.
    return Bounds(float(low) + 0.0, float(high) + 0.0, channels)


def observe(array: np.ndarray[Any, Any], channel_axis: int | None = None) -> TensorRange:
    """Return what one sample shows of a tensor.

    Args:
        array: Of a float type, any shape, at least one element.
        channel_axis: The axis to keep a largest magnitude for each index of, or None.

    Raises:
        ValueError: It holds an infinity or a NaN, or nothing.
    """
    array = array.astype(np.float32, copy=False)
    found = find_bounds(array, channel_axis)
    return add_observed(None, array, found)


def add_observed(
    total: TensorRange | None, array: np.ndarray[Any, Any], found: Bounds
) -> TensorRange:
    """Return what one more sample adds to `total`, whose histogram is changed in place.

    Args:
        total: What was observed before, or None.
        array: The tensor in this sample, float32.
        found: Its bounds.
    """
    low, high = units(found.low), units(found.high)
    if total is None:
        return TensorRange(1, found.low, found.high, low, high, count(array), found.channels)
    add_counts(total.counts, array)
    return TensorRange(
        total.samples + 1,
        min(total.minimum, found.low),
        max(total.maximum, found.high),
        total.sum_minimum + low,
        total.sum_maximum + high,
        total.counts,
        _larger(total.channels, found.channels),
    )


def units(number: float) -> int:
    """Return a number that float32 can hold as a multiple of 2^-149."""
    numerator, denominator = number.as_integer_ratio()
    return numerator * ((1 << _UNIT_BITS) // denominator)


def _larger(first: Channels | None, second: Channels | None) -> Channels | None:
    if first is None and second is None:
        return None
    if first is None or second is None or first.shape != second.shape:
        raise ValueError("has another number of channels")
    return np.maximum(first, second)
