"""Rounds the weights of a layer so that its outputs, not its weights, stay close.

For a layer Y = X W with inputs X `[rows, K]` and weights W `[K, N]`, rounding to W' costs

    E = |X W - X W'|^2 = tr((W - W')^T H (W - W')),     H = X^T X   `[K, K]`

Rounding each weight to the nearest ignores H. GPTQ (E. Frantar et al., 2022, after B. Hassibi's
Optimal Brain Surgeon) rounds the rows of W one after the other, and after each moves the rows that
are still free by what makes up best for the error made, which the Cholesky factor of the inverse
of H tells for all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int8]]

# Added to the diagonal of H, as a part of its mean: H of few rows is singular.
DAMPING = 0.01
_MOST_DAMPING = 1.0
# Rows that are rounded before their error is moved to all that follow, which is one product.
_ROWS = 128
# The parts of the largest weight that are tried as the end of the integer range.
_PARTS = np.linspace(1.0, 0.7, 13)


@dataclass(frozen=True, eq=False)
class RoundedWeight:
    """Weights as integers with their scales: `values * scale` is what the engine computes with.

    Attributes:
        values: int8 `[K, N]`.
        scale: float32 `[blocks, N]`: one for each column, or for each column and block of rows.
        block: Rows of a block; K where a column has one scale.
        error: E as above, divided by that of leaving the layer out, `tr(W^T H W)`.
    """

    values: Integers
    scale: np.ndarray[Any, np.dtype[np.float32]]
    block: int
    error: float

    def dequantized(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the weights that the integers stand for, float32 `[K, N]`."""
        spread = _spread(self.scale, len(self.values), self.block)
        return np.asarray(self.values.astype(np.float32) * spread, dtype=np.float32)


def column_scales(
    weight: np.ndarray[Any, Any],
    importance: Floats | None = None,
    *,
    bits: int = 8,
    block: int = 0,
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return symmetric scales for the columns of `weight`, by block of rows if asked.

    Args:
        weight: `[K, N]`.
        importance: The diagonal of H, `[K]`: the scales then lose least to rounding and clipping
            together; without it they reach the largest weight.
        bits: 8 or 4.
        block: Rows that share a scale; 0 for all.

    Returns:
        float32 `[ceil(K / block), N]`, each above 0.
    """
    rows = block or len(weight)
    limit = (1 << (bits - 1)) - 1
    parts = [
        _scales(
            weight[start : start + rows].astype(np.float64),
            None if importance is None else importance[start : start + rows],
            limit,
        )
        for start in range(0, len(weight), rows)
    ]
    return np.stack(parts).astype(np.float32)


def _scales(weight: Floats, importance: Floats | None, limit: int) -> Floats:
    largest = np.abs(weight).max(axis=0)
    # Columns of zeros, and of what float32 cannot divide by.
    largest = np.where(largest > np.finfo(np.float32).tiny * 256, largest, limit)
    if importance is None:
        return np.asarray(largest / limit)
    best = np.full(largest.shape, np.inf)
    found = largest / limit
    for part in _PARTS:
        scale = part * largest / limit
        lost = weight - np.clip(np.rint(weight / scale), -limit, limit) * scale
        error = importance @ (lost * lost)
        better = error < best
        best, found = np.where(better, error, best), np.where(better, scale, found)
    return np.asarray(found)


def round_nearest(
    weight: np.ndarray[Any, Any],
    scale: np.ndarray[Any, Any],
    hessian: Floats | None = None,
    *,
    bits: int = 8,
    block: int = 0,
) -> RoundedWeight:
    """Round each weight to the nearest multiple of its scale.

    Args:
        weight: `[K, N]`.
        scale: From `column_scales`.
        hessian: H, to say what it costs; without it the error is that of the weights.
        bits: 8 or 4.
        block: Rows that share a scale; 0 for all.
    """
    limit = (1 << (bits - 1)) - 1
    spread = _spread(scale, len(weight), block)
    values = np.clip(np.rint(weight / spread), -limit, limit)
    return _rounded(weight, values, scale, hessian, block)


def round_gptq(
    weight: np.ndarray[Any, Any],
    scale: np.ndarray[Any, Any],
    hessian: Floats,
    *,
    bits: int = 8,
    block: int = 0,
) -> RoundedWeight:
    """Round the weights so that the outputs over the calibration data stay closest.

    Args:
        weight: `[K, N]`.
        scale: From `column_scales`.
        hessian: H = X^T X over the calibration data, `[K, K]`.
        bits: 8 or 4.
        block: Rows that share a scale; 0 for all.

    Raises:
        ValueError: H is not finite.
    """
    limit = (1 << (bits - 1)) - 1
    # The rows that matter most go first, while all the others can still make up for them.
    order = np.argsort(-np.diag(hessian), kind="stable")
    factor = _inverse_factor(hessian[np.ix_(order, order)])
    free = weight[order].astype(np.float64)
    steps = _spread(scale, len(weight), block)[order].astype(np.float64)
    values = np.empty_like(free)
    for start in range(0, len(free), _ROWS):
        stop = min(start + _ROWS, len(free))
        moved = np.empty((stop - start, free.shape[1]))
        for row in range(start, stop):
            values[row] = np.clip(np.rint(free[row] / steps[row]), -limit, limit)
            lost = (free[row] - values[row] * steps[row]) / factor[row, row]
            moved[row - start] = lost
            free[row + 1 : stop] -= np.outer(factor[row, row + 1 : stop], lost)
        free[stop:] -= factor[start:stop, stop:].T @ moved
    back = np.empty_like(values)
    back[order] = values
    return _rounded(weight, back, scale, hessian, block)


def round_best(
    weight: np.ndarray[Any, Any],
    hessian: Floats,
    *,
    bits: int = 8,
    block: int = 0,
    held_out: np.ndarray[Any, Any] | None = None,
) -> tuple[str, RoundedWeight]:
    """Try the ways to round a layer, and return the name and the result of the best.

    Args:
        weight: `[K, N]`.
        hessian: H = X^T X over calibration data, `[K, K]`.
        bits: 8 or 4.
        block: Rows that share a scale; 0 for all.
        held_out: Rows of X that H knows nothing of, `[rows, K]`. They decide, if they are given:
            with few rows H is fitted too closely, and what is best by H is not by others.

    Returns:
        "nearest" (scales that reach the largest weight), "mse" (scales of least error) or "gptq".
        Of equals the simpler.
    """
    plain = column_scales(weight, bits=bits, block=block)
    least = column_scales(weight, np.diag(hessian).astype(np.float64), bits=bits, block=block)
    tried = [
        ("nearest", round_nearest(weight, plain, hessian, bits=bits, block=block)),
        ("mse", round_nearest(weight, least, hessian, bits=bits, block=block)),
        ("gptq", round_gptq(weight, least, hessian, bits=bits, block=block)),
    ]
    if held_out is not None:
        tried = [(name, _measured(made, weight, held_out)) for name, made in tried]
    return min(tried, key=lambda each: each[1].error)


def _measured(
    made: RoundedWeight, weight: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]
) -> RoundedWeight:
    """Return `made` with the error that it has over `rows`."""
    signal = float(np.sum(np.square(rows @ weight, dtype=np.float64)))
    noise = float(np.sum(np.square(rows @ (weight - made.dequantized()), dtype=np.float64)))
    return replace(made, error=noise / signal if signal else 0.0)


def corrected_bias(
    weight: np.ndarray[Any, Any], rounded: RoundedWeight, mean: Floats
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return what to add to the bias so that the mean of each output stays.

    Rounding moves the mean of Y by E[X] (W' - W): what M. Nagel et al., 2019, section 4.2 correct.

    Args:
        weight: `[K, N]`.
        rounded: What became of it.
        mean: E[X] over the calibration data, `[K]`.

    Returns:
        float32 `[N]`.
    """
    lost = weight.astype(np.float64) - rounded.dequantized()
    return np.asarray(mean @ lost, dtype=np.float32)


def _rounded(
    weight: np.ndarray[Any, Any],
    values: Floats,
    scale: np.ndarray[Any, Any],
    hessian: Floats | None,
    block: int,
) -> RoundedWeight:
    rows = block or len(weight)
    made = RoundedWeight(values.astype(np.int8), scale.astype(np.float32), rows, 0.0)
    lost = weight.astype(np.float64) - made.dequantized()
    whole = _energy(weight.astype(np.float64), hessian)
    error = _energy(lost, hessian) / whole if whole > 0 else 0.0
    return replace(made, error=float(error))


def _energy(weight: Floats, hessian: Floats | None) -> float:
    return float(np.sum(weight * (weight if hessian is None else hessian @ weight)))


def _spread(scale: np.ndarray[Any, Any], rows: int, block: int) -> np.ndarray[Any, Any]:
    """Return `[blocks, N]` as `[K, N]`."""
    return np.repeat(scale, block or rows, axis=0)[:rows]


def _inverse_factor(hessian: Floats) -> Floats:
    """Return the upper triangle U with U^T U = inverse of the damped H."""
    if not np.isfinite(hessian).all():
        raise ValueError("the Hessian holds NaN or infinity")
    size = len(hessian)
    mean = float(np.mean(np.diag(hessian))) or 1.0
    damping = DAMPING
    while True:
        damped = hessian.astype(np.float64) + damping * mean * np.eye(size)
        try:
            # Factored from its last row upwards, H = V V^T with V an upper triangle, so that the
            # inverse of H is (V^-1)^T V^-1.
            upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
            return _inverse_of_triangle(np.ascontiguousarray(upper))
        except np.linalg.LinAlgError:
            if damping >= _MOST_DAMPING:
                raise ValueError("the Hessian cannot be inverted") from None
            damping *= 10


def _inverse_of_triangle(upper: Floats) -> Floats:
    """Return the inverse of an upper triangle, in halves: most of the work is products."""
    size = len(upper)
    if size <= _ROWS:
        return np.asarray(np.linalg.inv(upper))
    half = size // 2
    made = np.zeros_like(upper)
    made[:half, :half] = _inverse_of_triangle(upper[:half, :half])
    made[half:, half:] = _inverse_of_triangle(upper[half:, half:])
    made[:half, half:] = -made[:half, :half] @ upper[:half, half:] @ made[half:, half:]
    return made
