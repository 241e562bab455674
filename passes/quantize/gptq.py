"""Rounds the weights of a layer so that its outputs, not its weights, stay close.

For a layer Y = X W with inputs X `[rows, K]` and weights W `[K, N]`, rounding to W' costs

    E = |X W - X W'|^2 = tr((W - W')^T H (W - W')),     H = X^T X   `[K, K]`

Rounding each weight to the nearest ignores H. GPTQ (E. Frantar et al., 2022, after B. Hassibi's
Optimal Brain Surgeon) rounds the rows of W one after the other, and after each moves the rows that
are still free by what makes up best for the error made, which the Cholesky factor of the inverse
of H tells for all of them at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from leptonc.passes.quantize.scales import (
    Array,
    Floats,
    RoundedWeight,
    column_scales,
    nearest,
    round_nearest,
    spread,
)

# Added to the diagonal of H, as a part of its mean: H of few rows is singular.
DAMPING = 0.01
_MOST_DAMPING = 1.0
# Rows that are rounded before their error is moved to all that follow, which is one product.
_ROWS = 128


def round_gptq(
    weight: Array, scale: Array, hessian: Floats, *, bits: int = 8, block: int = 0
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
    rows = block or len(weight)
    # The rows that matter most go first, while all the others can still make up for them.
    order = np.argsort(-np.diag(hessian), kind="stable")
    factor = _inverse_factor(hessian[np.ix_(order, order)])
    free = weight[order].astype(np.float64)
    steps = spread(scale, len(weight), rows)[order].astype(np.float64)
    values = np.empty_like(free)
    for start in range(0, len(free), _ROWS):
        stop = min(start + _ROWS, len(free))
        moved = np.empty((stop - start, free.shape[1]))
        for row in range(start, stop):
            values[row] = nearest(free[row], steps[row], bits)
            lost = (free[row] - values[row] * steps[row]) / factor[row, row]
            moved[row - start] = lost
            free[row + 1 : stop] -= np.outer(factor[row, row + 1 : stop], lost)
        free[stop:] -= factor[start:stop, stop:].T @ moved
    back = np.empty_like(values)
    back[order] = values
    return RoundedWeight(back.astype(np.int8), scale.astype(np.float32), rows)


def round_best(
    weight: Array,
    hessian: Floats,
    *,
    bits: int = 8,
    block: int = 0,
    held_out: Array | None = None,
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
        ("nearest", round_nearest(weight, plain, bits=bits, block=block)),
        ("mse", round_nearest(weight, least, bits=bits, block=block)),
        ("gptq", round_gptq(weight, least, hessian, bits=bits, block=block)),
    ]
    if held_out is not None:
        return min(tried, key=lambda each: error_over(held_out, weight, each[1]))
    return min(tried, key=lambda each: error_by(hessian, weight, each[1]))


def error_over(rows: Array, weight: Array, made: RoundedWeight) -> float:
    """Return E over some rows of X, divided by that of leaving the layer out: `|X W|^2`."""
    signal = float(np.sum(np.square(rows @ weight, dtype=np.float64)))
    noise = float(np.sum(np.square(rows @ (weight - made.dequantized()), dtype=np.float64)))
    return noise / signal if signal else 0.0


def error_by(hessian: Floats, weight: Array, made: RoundedWeight) -> float:
    """Return E as H tells it, divided by that of leaving the layer out: `tr(W^T H W)`."""
    exact = weight.astype(np.float64)
    lost = exact - made.dequantized()
    whole = float(np.sum(exact * (hessian @ exact)))
    return float(np.sum(lost * (hessian @ lost))) / whole if whole > 0 else 0.0


def corrected_bias(
    weight: Array, rounded: RoundedWeight, mean: Floats
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
