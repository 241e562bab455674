"""Rounding of weights: never worse than the nearest values, and exact in what it reports."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonc.passes.quantize.gptq import (
    corrected_bias,
    error_by,
    error_over,
    round_best,
    round_gptq,
)
from leptonc.passes.quantize.scales import column_scales, round_nearest

cases = st.tuples(
    st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 9), st.sampled_from([8, 4])
)


def problem(seed, rows, columns):
    """Return inputs whose columns go together, as those of a trained network do, and a weight."""
    chance = np.random.default_rng(seed)
    mixed = chance.standard_normal((3 * rows, rows)) @ chance.standard_normal((rows, rows))
    return mixed + 0.5, chance.standard_normal((rows, columns)).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(cases, st.sampled_from([0, 16]))
def test_integers_stay_in_range_and_the_error_is_that_of_the_outputs(case, block):
    seed, rows, columns, bits = case
    x, weight = problem(seed, rows, columns)
    limit = 2 ** (bits - 1) - 1
    name, made = round_best(weight, x.T @ x, bits=bits, block=block)
    assert name in ("nearest", "mse", "gptq")
    assert made.values.dtype == np.int8
    assert np.abs(made.values).max() <= limit
    blocks = -(-rows // (block or rows))
    assert made.scale.shape == (blocks, columns)
    exact = x @ weight
    lost = x @ (weight - made.dequantized().astype(np.float64))
    error = np.sum(lost**2) / np.sum(exact**2)
    assert error_by(x.T @ x, weight, made) == pytest.approx(error, rel=1e-6, abs=1e-12)
    assert error_over(x, weight, made) == pytest.approx(error, rel=1e-6, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(cases)
def test_the_best_is_at_least_as_good_as_the_nearest(case):
    seed, rows, columns, bits = case
    x, weight = problem(seed, rows, columns)
    hessian = x.T @ x
    nearest = round_nearest(weight, column_scales(weight, bits=bits), bits=bits)
    best = round_best(weight, hessian, bits=bits)[1]
    assert error_by(hessian, weight, best) <= error_by(hessian, weight, nearest)


def test_rows_that_were_held_out_decide():
    # Two rows say nothing of the forty inputs: what is best for them is not for others.
    chance = np.random.default_rng(0)
    weight = chance.standard_normal((40, 8)).astype(np.float32)
    few, others = chance.standard_normal((2, 40)), chance.standard_normal((400, 40))
    by_few, _ = round_best(weight, few.T @ few, bits=4)
    name, made = round_best(weight, few.T @ few, bits=4, held_out=others)
    careful = round_gptq(weight, made.scale, few.T @ few, bits=4)
    assert by_few == "gptq"
    assert name != "gptq"
    assert error_over(others, weight, made) < error_over(others, weight, careful)


@pytest.mark.parametrize("bits", [8, 4])
def test_gptq_gains_at_least_two_decibels_where_inputs_go_together(bits):
    x, weight = problem(3, 64, 32)
    hessian = x.T @ x
    scale = column_scales(weight, bits=bits)
    made = [
        round_nearest(weight, scale, bits=bits),
        round_gptq(weight, scale, hessian, bits=bits),
    ]
    nearest, careful = (error_by(hessian, weight, each) for each in made)
    assert 10 * np.log10(nearest / careful) > 2.0


def test_gptq_gives_the_nearest_values_where_inputs_are_independent():
    _, weight = problem(3, 24, 8)
    scale = column_scales(weight)
    careful = round_gptq(weight, scale, np.eye(24))
    np.testing.assert_array_equal(careful.values, round_nearest(weight, scale).values)


def test_gptq_solves_what_can_be_solved_by_hand():
    # Two inputs that are always equal: only the sum of their weights counts.
    weight = np.array([[0.4], [0.4], [127.0]], dtype=np.float32)
    hessian = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    values = round_gptq(weight, np.ones((1, 1)), hessian).values[:, 0].tolist()
    assert sorted(values[:2]) == [0, 1]
    assert round_nearest(weight, np.ones((1, 1))).values[:, 0].tolist() == [0, 0, 127]


def test_inputs_that_are_never_there_do_not_matter():
    _, weight = problem(1, 8, 4)
    hessian = np.zeros((8, 8))
    hessian[0, 0] = 1.0
    made = round_gptq(weight, column_scales(weight), hessian)
    assert np.isfinite(made.dequantized()).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_a_column_of_zeros_stays_zero(bits):
    weight = np.zeros((6, 2), np.float32)
    weight[:, 1] = np.arange(6)
    _, made = round_best(weight, np.eye(6), bits=bits)
    assert not made.dequantized()[:, 0].any()
    assert (made.scale > 0).all()


def test_each_block_has_its_own_scale():
    weight = np.repeat([[1.0], [100.0]], 16, axis=0).astype(np.float32)
    scale = column_scales(weight, block=16)
    np.testing.assert_allclose(scale[:, 0], [1 / 127, 100 / 127], rtol=1e-6)
    np.testing.assert_allclose(
        round_nearest(weight, scale, block=16).dequantized(), weight, rtol=1e-6
    )


def test_a_last_block_may_be_shorter():
    weight = np.arange(1, 21, dtype=np.float32)[:, None]
    made = round_nearest(weight, column_scales(weight, block=16), block=16)
    assert made.scale.shape == (2, 1)
    np.testing.assert_allclose(made.dequantized(), weight, atol=20 / 127)


def test_a_hessian_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        round_gptq(np.ones((2, 1), np.float32), np.ones((1, 1)), np.full((2, 2), np.nan))


def test_the_corrected_bias_keeps_the_mean_of_the_outputs():
    x, weight = problem(5, 12, 6)
    made = round_nearest(weight, column_scales(weight, bits=4), bits=4)
    bias = corrected_bias(weight, made, x.mean(axis=0))
    moved = (x @ made.dequantized() + bias).mean(axis=0) - (x @ weight).mean(axis=0)
    assert np.abs(moved).max() < 1e-5
    assert np.abs((x @ made.dequantized() - x @ weight).mean(axis=0)).max() > 1e-3
