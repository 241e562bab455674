"""What was observed of one tensor, in a form that adds up exactly.

Counts are whole numbers, and the sums behind `mean_bounds` are kept as whole numbers too (each
float32 is a multiple of 2^-149), so the order of the samples, their split over machines and the
size of a batch leave no trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from leptonc.passes.histogram import Counts, count, has_non_finite

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


def observe(array: np.ndarray[Any, Any], channel_axis: int | None = None) -> TensorRange:
    """Return what one sample shows of a tensor.

    Args:
        array: Of a float type, any shape, at least one element.
        channel_axis: The axis to keep a largest magnitude for each index of, or None.

    Raises:
        ValueError: It holds an infinity or a NaN, or nothing.
    """
    if not array.size:
        raise ValueError("is empty")
    counts = count(array)
    if has_non_finite(counts):
        raise ValueError("holds " + ("NaN" if np.isnan(array).any() else "an infinity"))
    low, high = np.float32(array.min()), np.float32(array.max())
    channels = None if channel_axis is None else _magnitudes(array, channel_axis)
    # Adding 0 makes a plain 0 of a negative one, which equals it but is spelled otherwise.
    bounds = float(low) + 0.0, float(high) + 0.0
    return TensorRange(1, *bounds, units(float(low)), units(float(high)), counts, channels)


def units(number: float) -> int:
    """Return a number that float32 can hold as a multiple of 2^-149."""
    numerator, denominator = number.as_integer_ratio()
    return numerator * ((1 << _UNIT_BITS) // denominator)


def _magnitudes(array: np.ndarray[Any, Any], axis: int) -> Channels:
    others = tuple(index for index in range(array.ndim) if index != axis % array.ndim)
    largest = np.maximum(array.max(axis=others), -array.min(axis=others))
    return np.asarray(largest, dtype=np.float32) + np.float32(0)


def _larger(first: Channels | None, second: Channels | None) -> Channels | None:
    if first is None and second is None:
        return None
    if first is None or second is None or first.shape != second.shape:
        raise ValueError("has another number of channels")
    return np.maximum(first, second)
