"""The search over layers: it keeps the goals, stays in its budget, and wastes no speed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonc.compiler.accuracy.search import Evaluation, LayerCost, search


def world(costs, bound):
    """Noises add up: a candidate's SQNR is that of the sum over its quantised layers."""
    seen = []

    def evaluate(floats):
        noise = sum(cost.noise for cost in costs if cost.layer not in floats)
        sqnr = -10 * math.log10(noise) if noise > 0 else math.inf
        seen.append(floats)
        return Evaluation(frozenset(floats), {"sqnr": (sqnr - bound) / bound}, {"sqnr": sqnr})

    return evaluate, seen


layers = st.lists(
    st.tuples(st.floats(1e-7, 1e-2), st.floats(-1e-3, 1e-2)), min_size=1, max_size=100
).map(lambda rows: [LayerCost(f"l{i}", noise, saved) for i, (noise, saved) in enumerate(rows)])


@settings(deadline=None, max_examples=60)
@given(layers, st.floats(5.0, 60.0))
def test_what_is_found_keeps_the_goals_whenever_one_quantised_layer_can(costs, bound):
    evaluate, seen = world(costs, bound)
    result = search(costs, evaluate)
    assert 1 <= len(seen) <= 20
    assert len(set(seen)) == len(seen)
    assert len(result.best.floats) < len(costs)
    last = result.ranking[-1]
    if evaluate(frozenset(c.layer for c in costs) - {last.layer}).keeps:
        assert result.reached
    assert result.reached == result.best.keeps


def test_all_layers_are_quantised_when_that_keeps_the_goals():
    costs = [LayerCost(f"l{i}", 1e-6, 1e-3) for i in range(100)]
    evaluate, seen = world(costs, 20.0)
    assert search(costs, evaluate).best.floats == frozenset()
    assert seen == [frozenset()]


def test_the_one_bad_layer_of_a_hundred_is_the_one_kept():
    costs = [LayerCost(f"l{i}", 0.1 if i == 37 else 1e-6, 1e-3) for i in range(100)]
    evaluate, seen = world(costs, 30.0)
    assert search(costs, evaluate).best.floats == {"l37"}
    assert len(seen) <= 5


def test_a_layer_that_saves_nothing_stays_in_float():
    costs = [LayerCost("slow", 1e-6, -1e-4), LayerCost("fast", 1e-6, 1e-3)]
    evaluate, _ = world(costs, 20.0)
    assert search(costs, evaluate).best.floats == {"slow"}


def test_noise_is_weighed_against_the_time_that_it_saves():
    # Either of the two breaks the goal; the one that saves little is given up.
    costs = [
        LayerCost("saves much", 2e-3, 1e-2),
        LayerCost("saves little", 1e-3, 1e-4),
        LayerCost("harmless", 1e-6, 1e-3),
    ]
    evaluate, _ = world(costs, 26.0)
    assert search(costs, evaluate).best.floats == {"saves little"}


def test_layers_given_up_on_the_way_are_taken_back():
    # The ranking gives up "noisy" after "cheap"; "noisy" alone is enough.
    costs = [
        LayerCost("cheap", 1e-4, 1e-6),
        LayerCost("noisy", 1e-1, 2e-3),
        LayerCost("rest", 1e-6, 1e-2),
    ]
    evaluate, _ = world(costs, 35.0)
    assert search(costs, evaluate).best.floats == {"noisy"}


@pytest.mark.parametrize("count", [1, 2, 100])
def test_a_goal_out_of_reach_gives_the_nearest_and_says_so(count):
    costs = [LayerCost(f"l{i}", 1e-2, 1e-3) for i in range(count)]
    evaluate, seen = world(costs, 90.0)
    result = search(costs, evaluate)
    assert not result.reached
    assert len(seen) <= 20
    assert len(result.best.floats) == count - 1
    assert result.best.rooms["sqnr"] == max(each.rooms["sqnr"] for each in result.evaluations)


def test_the_budget_is_kept_when_it_is_small():
    costs = [LayerCost(f"l{i}", 10.0 ** -(2 + i % 3), 1e-3) for i in range(100)]
    evaluate, seen = world(costs, 30.0)
    search(costs, evaluate, most=3)
    assert len(seen) == 3
