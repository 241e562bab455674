from __future__ import annotations

import math

import numpy as np
import pytest

from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.verification.comparison import compare_arrays, compare_outputs

RNG = np.random.default_rng(0)
SIGNAL = RNG.standard_normal(1000).astype(np.float32)


def check(expected, actual, tolerance=Tolerance()):
    return compare_arrays("y", np.asarray(expected), np.asarray(actual), tolerance)


def test_equal_arrays_have_no_error():
    error = check(SIGNAL, SIGNAL.copy())
    assert (error.max_abs, error.cosine, error.sqnr_db, error.problem) == (0.0, 1.0, None, None)


def test_sqnr_follows_its_definition():
    error = check([3.0, 4.0], [3.0, 4.5], Tolerance(sqnr_db=10, relative=1))
    assert error.sqnr_db == pytest.approx(10 * math.log10(25 / 0.25))
    assert error.max_abs == 0.5
    assert error.cosine == pytest.approx((9 + 18) / (5 * math.hypot(3, 4.5)))
    assert error.problem is None


@pytest.mark.parametrize(
    ("expected", "actual", "problem"),
    [
        (SIGNAL, SIGNAL * 1.01, "SQNR 40.0 dB, below 70 dB"),
        (SIGNAL, SIGNAL[:-1], "shape [999] instead of [1000]"),
        (SIGNAL, SIGNAL.astype(np.float64), "dtype float64 instead of float32"),
        ([1.0, np.nan], [np.nan, 1.0], "NaN or infinite in other places"),
        ([1.0, 2.0], [1.0, np.inf], "NaN or infinite in other places"),
        ([np.inf], [-np.inf], "NaN or infinite in other places"),
        ([1, 2, 3], [1, 2, 4], "1 of 3 elements differ"),
        ([True, False], [True, True], "1 of 2 elements differ"),
        ([0.0, 0.0], [0.0, 1.0], "SQNR -inf dB"),
    ],
)
def test_a_difference_is_named(expected, actual, problem):
    assert problem in (check(expected, actual).problem or "")


def test_one_wrong_element_does_not_hide_in_a_large_tensor():
    expected = np.ones(100_000_000 // 8, dtype=np.float32)
    actual = expected.copy()
    actual[5] = 1.01
    error = check(expected, actual)
    assert error.sqnr_db is not None and error.sqnr_db > 70
    assert "largest difference 0.01" in (error.problem or "")


@pytest.mark.parametrize(
    "values", [[1.0, np.nan, np.inf], [0.0, 0.0], []], ids=["specials", "zeros", "empty"]
)
def test_specials_zeros_and_empty_arrays_equal_themselves(values):
    assert check(np.array(values, np.float32), np.array(values, np.float32)).problem is None


def test_rounding_around_zero_passes():
    assert check(np.zeros(4, np.float32), np.full(4, 1e-8, np.float32)).problem is None


def test_a_missing_output_is_a_problem():
    (error,) = compare_outputs({"y": SIGNAL}, {}, Tolerance())
    assert error.problem == "the output is missing"
