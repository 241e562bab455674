"""Compare arrays with what they should be.

SQNR (signal to quantisation-noise ratio) is 10·log10(Σ x² / Σ (x - y)²) in dB, over all finite
elements; it measures energy, so one wrong element in a large tensor can hide in it. The largest
absolute difference catches that one, so an output passes only when both bounds hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from leptonc.compiler.settings.tolerance import Tolerance

# Below this difference a tensor of (nearly) zeros is right, whatever its SQNR.
ABSOLUTE_FLOOR = 1e-6


@dataclass(frozen=True)
class OutputError:
    """How far one output is from what it should be.

    Attributes:
        output: Its name.
        max_abs: The largest absolute difference, or the number of unequal elements when the
            output is not a float.
        cosine: The cosine between the two as flat vectors; 1.0 for equal ones.
        sqnr_db: In dB; None when the two are equal.
        problem: Why it fails, or None when it passes.
    """

    output: str
    max_abs: float
    cosine: float
    sqnr_db: float | None
    problem: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the figures, rounded to three significant digits so that they repeat."""
        return {
            "output": self.output,
            "max_abs": _rounded(self.max_abs),
            "cosine": round(self.cosine, 7),
            "sqnr_db": None if self.sqnr_db is None else round(self.sqnr_db, 1),
        }


def compare_outputs(
    expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray], tolerance: Tolerance
) -> tuple[OutputError, ...]:
    """Compare every expected output with the one of the same name."""
    return tuple(
        compare_arrays(name, array, actual[name], tolerance)
        if name in actual
        else OutputError(name, math.inf, 0.0, -math.inf, "the output is missing")
        for name, array in expected.items()
    )


def compare_arrays(
    name: str, expected: np.ndarray, actual: np.ndarray, tolerance: Tolerance
) -> OutputError:
    """Compare one array with what it should be: dtype, shape, then values."""
    if expected.dtype != actual.dtype and not (
        expected.dtype.kind in "OU" and actual.dtype.kind in "OU"
    ):
        return OutputError(
            name, math.inf, 0.0, -math.inf, f"dtype {actual.dtype} instead of {expected.dtype}"
        )
    if expected.shape != actual.shape:
        return OutputError(
            name,
            math.inf,
            0.0,
            -math.inf,
            f"shape {list(actual.shape)} instead of {list(expected.shape)}",
        )
    if expected.dtype.kind not in "fc":
        return _compare_exact(name, expected, actual)
    return _compare_floats(name, expected, actual, tolerance)


def _compare_exact(name: str, expected: np.ndarray, actual: np.ndarray) -> OutputError:
    unequal = int(np.count_nonzero(expected != actual))
    if not unequal:
        return OutputError(name, 0.0, 1.0, None)
    share = 1.0 - unequal / expected.size
    return OutputError(
        name, float(unequal), share, 0.0, f"{unequal} of {expected.size} elements differ"
    )


def _compare_floats(
    name: str, expected: np.ndarray, actual: np.ndarray, tolerance: Tolerance
) -> OutputError:
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    reference, candidate = expected.astype(wide).ravel(), actual.astype(wide).ravel()
    finite = np.isfinite(reference)
    same_specials = np.array_equal(reference[~finite], candidate[~finite], equal_nan=True)
    if not same_specials or not np.isfinite(candidate[finite]).all():
        return OutputError(name, math.inf, 0.0, -math.inf, "NaN or infinite in other places")
    reference, candidate = reference[finite], candidate[finite]
    difference = np.abs(reference - candidate)
    noise = float(np.sum(difference**2))
    if noise == 0.0:
        return OutputError(name, 0.0, 1.0, None)
    signal = float(np.sum(np.abs(reference) ** 2))
    max_abs = float(difference.max())
    sqnr = 10.0 * math.log10(signal / noise) if signal > 0 else -math.inf
    norms = math.sqrt(signal) * float(np.linalg.norm(candidate))
    cosine = float(np.abs(np.vdot(reference, candidate))) / norms if norms > 0 else 0.0
    bound = tolerance.relative * float(np.abs(reference).max())
    problem = None
    if max_abs > ABSOLUTE_FLOOR and sqnr < tolerance.sqnr_db:
        problem = f"SQNR {sqnr:.1f} dB, below {tolerance.sqnr_db:g} dB"
    elif max_abs > max(bound, ABSOLUTE_FLOOR):
        problem = f"largest difference {max_abs:.3g}, above {bound:.3g}"
    return OutputError(name, max_abs, cosine, sqnr, problem)


def _rounded(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None
