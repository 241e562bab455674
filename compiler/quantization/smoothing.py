"""Chooses how strongly to smooth each tensor: by what it does to the outputs of its layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leptonc.compiler.quantization.layer_statistics import LayerStatistics
from leptonc.passes.quantize.scales import Array, column_scales, round_nearest, scale_for
from leptonc.passes.rescale.smooth import Smoothable, Smoothing, outlier_powers, smoothing_powers

STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PARTS = (2, 4, 8, 16)
# A division of its own takes time: it has to halve the noise to pay.
WORTH_A_NODE = 0.5
WORTH_NOTHING = 0.97


def choose_smoothing(
    found: Smoothable, statistics: LayerStatistics, *, insert: bool = True
) -> tuple[Smoothing, float] | None:
    """Return the smoothing of one tensor that gives its layers the least noise.

    Every strength, and dividing the largest channels alone, is tried on rows of X that were held out: both X and the weights are
    rounded to 8 bits, and the outputs compared with the exact ones.

    Args:
        found: The tensor and its layers.
        statistics: Of X, as any of these layers sees it.
        insert: Whether a node may be added where the division cannot be folded.

    Returns:
        The smoothing and the part of the noise that is left, or None when none pays.
    """
    if not found.folds and not insert:
        return None
    weights = [layer.weight() for layer in found.layers]
    rows = statistics.kept
    exact = [rows @ weight for weight in weights]
    plain = _noise(rows, weights, exact)
    if plain == 0.0:
        return None
    best: tuple[float, int] | None = None
    for way, powers in enumerate(_ways(statistics.largest, weights)):
        factors = np.ldexp(np.float32(1), powers.astype(np.int32))
        scaled = [weight * factors[:, None] for weight in weights]
        noise = _noise(rows / factors, scaled, exact)
        if best is None or noise < best[0]:
            best = noise, way
    assert best is not None
    left = best[0] / plain
    if left > (WORTH_NOTHING if found.folds else WORTH_A_NODE):
        return None
    final = _ways(statistics.largest_of_all, weights)[best[1]]
    return Smoothing(found.tensor, tuple(int(power) for power in final)), left


def _ways(largest: Array, weights: Sequence[Array]) -> list[Array]:
    """Return the powers of two of each way to smooth, always in the same order."""
    strengths = [smoothing_powers(largest, weights, strength) for strength in STRENGTHS]
    return strengths + [outlier_powers(largest, part) for part in PARTS]


def _noise(rows: Array, weights: Sequence[Array], exact: Sequence[Array]) -> float:
    """Return the noise of the layers relative to their signal, added up."""
    rounded = round_activations(rows)
    total = 0.0
    for weight, right in zip(weights, exact, strict=True):
        difference = rounded @ round_nearest(weight, column_scales(weight)).dequantized() - right
        signal = float(np.sum(np.square(right, dtype=np.float64)))
        total += float(np.sum(np.square(difference, dtype=np.float64))) / signal if signal else 0.0
    return total


def round_activations(rows: Array) -> Array:
    """Round to 256 levels from the smallest to the largest element, with an exact 0."""
    low, high = min(float(rows.min()), 0.0), max(float(rows.max()), 0.0)
    return scale_for(low, high, symmetric=False).rounded(rows)
