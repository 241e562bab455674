"""From what was observed of a tensor to the range that its quantised form covers.

One histogram answers all of them, so one calibration run serves every method:

- `minmax`: the smallest and the largest element seen.
- `average`: the mean over the samples of each sample's smallest and largest element. A moving
  average would depend on the order of the samples; this is what it approaches, and does not.
- `percentile`: leaves out the given part of the elements at each end.
- `entropy`: the threshold on |x| whose quantised distribution diverges least from the original
  (Kullback-Leibler), after S. Migacz, "8-bit inference with TensorRT", 2017.
- `mse`: the range that gives the smallest mean squared error, of rounding and clipping together.

Every range holds 0, because padding must have an exact value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from leptonc.passes.ranges.histogram import Distribution, Floats, distribution
from leptonc.passes.ranges.tensor_range import TensorRange

Range = tuple[float, float]

# The bins that the entropy method looks at, the levels that a threshold must leave, and by how
# many bins one threshold differs from the next.
_ENTROPY_BINS = 2048
_ENTROPY_LEVELS = 128
_ENTROPY_STRIDE = 16
# By which part of minmax the mse method narrows an end from one try to the next.
_STEPS = 100
# How often it goes back to an end after it moved the other.
_MOST_TURNS = 8

DEFAULT_PERCENTILE = 99.99


@dataclass(frozen=True)
class Request:
    """What a range is for.

    Attributes:
        percent: For `percentile`: which part of the elements counts, from either end.
        symmetric: Whether the range must reach as far below 0 as above.
        levels: How many values the quantised form has.
    """

    percent: float = DEFAULT_PERCENTILE
    symmetric: bool = False
    levels: int = 256


def minmax(observed: TensorRange, request: Request) -> Range:
    """Return the smallest and the largest element."""
    return _with_zero(observed.minimum, observed.maximum, request)


def average(observed: TensorRange, request: Request) -> Range:
    """Return the mean of the smallest and of the largest elements of the samples."""
    low, high = observed.mean_bounds
    return _with_zero(low, high, request)


def percentile(observed: TensorRange, request: Request) -> Range:
    """Return the range that leaves out `100 - percent` of a hundred elements at each end.

    The ends are at most one bin of the histogram, 1/128 of their value, too far out.
    """
    found = distribution(observed.counts)
    total = int(found.counts.sum())
    allowed = int(total * (100.0 - request.percent) / 100.0)
    ascending = np.cumsum(found.counts)
    first = int(np.searchsorted(ascending, allowed, side="right"))
    last = int(np.searchsorted(ascending, total - allowed, side="left"))
    low = max(float(found.low[first]), observed.minimum)
    high = min(float(found.high[last]), observed.maximum)
    return _with_zero(low, high, request)


def entropy(observed: TensorRange, request: Request) -> Range:
    """Return the range up to the threshold on |x| with the least divergence."""
    largest = max(abs(observed.minimum), abs(observed.maximum))
    if largest == 0.0:
        return 0.0, 0.0
    linear = magnitudes(distribution(observed.counts), largest)
    edges = range(_ENTROPY_LEVELS, _ENTROPY_BINS + 1, _ENTROPY_STRIDE)
    divergences = [divergence(linear, edge) for edge in edges]
    best = edges[int(np.argmin(divergences))]
    threshold = largest * best / _ENTROPY_BINS
    low, high = max(observed.minimum, -threshold), min(observed.maximum, threshold)
    return _with_zero(low, high, request)


def mse(observed: TensorRange, request: Request) -> Range:
    """Return the range that loses least to rounding and to clipping together.

    The best common part of both ends comes first; then each end is moved by itself, in turns,
    until that no longer helps.
    """
    low, high = minmax(observed, request)
    if low == high:
        return low, high
    found = distribution(observed.counts)
    values = np.clip(found.middle, observed.minimum, observed.maximum)
    weights = found.counts.astype(np.float64)

    def error(candidate: Range) -> float:
        return squared_error(values, weights, candidate, request.levels)

    parts = [step / _STEPS for step in range(_STEPS, 0, -1)]
    best = min(((low * part, high * part) for part in parts), key=error)
    if request.symmetric:
        return best
    for _ in range(_MOST_TURNS):
        before = best
        best = min([best, *((low * part, best[1]) for part in parts)], key=error)
        best = min([best, *((best[0], high * part) for part in parts)], key=error)
        if best == before:
            break
    return best


METHODS: dict[str, Callable[[TensorRange, Request], Range]] = {
    "minmax": minmax,
    "average": average,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def _with_zero(low: float, high: float, request: Request) -> Range:
    low, high = min(low, 0.0), max(high, 0.0)
    if request.symmetric:
        high = max(-low, high)
        low = -high
    # Adding 0 makes a plain 0 of a negative one.
    return low + 0.0, high + 0.0


def magnitudes(found: Distribution, largest: float) -> Floats:
    """Return the counts of |x| in 2048 equal bins from 0 to `largest`.

    The elements of a bin of the histogram are spread evenly over the bins that it overlaps;
    those that are exactly 0 stay out, because every range represents them exactly.
    """
    edges = np.linspace(0.0, largest, _ENTROPY_BINS + 1)
    below = np.zeros(_ENTROPY_BINS + 1)
    for side in (found.low > 0, found.high < 0):
        near = np.minimum(np.abs(found.low[side]), np.abs(found.high[side]))
        far = np.maximum(np.abs(found.low[side]), np.abs(found.high[side]))
        order = np.argsort(near)
        counts = found.counts[side][order].astype(np.float64)
        ends = np.stack((near[order], np.minimum(far[order], largest)), axis=1).reshape(-1)
        upto = np.cumsum(counts)
        # Between the bins of the histogram nothing is added.
        sums = np.stack((upto - counts, upto), axis=1).reshape(-1)
        if counts.size:
            below += np.interp(edges, ends, sums)
            # A bin that begins at the last edge is a step, which interpolation may miss.
            below[-1] += upto[-1] - np.interp(edges[-1], ends, sums)
    return np.maximum(np.diff(below), 0.0)


def divergence(linear: Floats, edge: int) -> float:
    """Return how far the form with fewer levels of the first `edge` bins is from the whole.

    Args:
        linear: Counts of |x|, `[2048]`.
        edge: Beyond it everything is clipped into the last bin before it.
    """
    reference = linear[:edge].copy()
    reference[-1] += linear[edge:].sum()
    total = float(reference.sum())
    bounds = np.linspace(0, edge, _ENTROPY_LEVELS + 1).astype(int)
    occupied = linear[:edge] > 0
    sums = np.add.reduceat(linear[:edge], bounds[:-1])
    filled = np.add.reduceat(occupied.astype(np.float64), bounds[:-1])
    level = np.repeat(np.divide(sums, np.maximum(filled, 1.0)), np.diff(bounds))
    candidate = np.where(occupied, level, 0.0)
    mass = float(candidate.sum())
    if total == 0.0 or mass == 0.0:
        return float("inf") if total > 0.0 else 0.0
    p, q = reference / total, candidate / mass
    # What is clipped into a bin that is empty by itself has no counterpart: the smallest stands in.
    q = np.where((p > 0) & (q == 0), 1e-12, q)
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / q[seen])))


def squared_error(values: Floats, weights: Floats, bounds: Range, levels: int) -> float:
    """Return the weighted squared error of `values` in a quantised form.

    The form holds 0 exactly, as every engine demands, so the grid is moved onto it.

    Args:
        values: Elements, or what stands for several of them.
        weights: How many elements each stands for.
        bounds: The range that the form covers.
        levels: How many values it has.
    """
    low, high = bounds
    scale = (high - low) / (levels - 1)
    if scale == 0.0:
        return float(np.sum(weights * values**2))
    zero = round(-low / scale)
    steps = np.clip(np.round(values / scale), -zero, levels - 1 - zero)
    return float(np.sum(weights * (values - steps * scale) ** 2))
