"""Which optimisation profile a call runs in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonc.runtime.engines.tensorrt.plan_demands import Profile, ShapeRange
from leptonc.runtime.engines.tensorrt.profiles import choose_profile, tuning_distance
from leptonc.runtime.errors import InputError


def profile(*axes: tuple[int, int, int]) -> Profile:
    low, best, high = zip(*axes, strict=True)
    return {"x": ShapeRange(low, best, high)}


SHORT = profile((1, 8, 8), (16, 64, 128))
LONG = profile((1, 1, 2), (64, 384, 512))


@pytest.mark.parametrize(
    ("shape", "chosen"),
    [((8, 64), 0), ((1, 512), 1), ((2, 128), 1), ((1, 128), 1), ((1, 65), 0), ((8, 128), 0)],
)
def test_the_profile_tuned_nearest_is_chosen(shape: tuple[int, ...], chosen: int) -> None:
    assert choose_profile([SHORT, LONG], {"x": shape}) == chosen


def test_of_equals_the_first_is_chosen() -> None:
    assert choose_profile([SHORT, SHORT], {"x": (2, 64)}) == 0


def test_a_shape_outside_every_profile_names_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        choose_profile([SHORT, LONG], {"x": (3, 500)})
    text = str(caught.value)
    assert "2 in the plan" in text
    assert "profile 1, 'x' has 3 in axis 0, where it takes 1 to 2" in text
    assert "given: x [3, 500]; profile 1: x [1, 64] to [2, 512]" in text
    assert "--profile" in text


def test_inputs_that_a_profile_does_not_name_do_not_matter() -> None:
    assert choose_profile([{}], {"x": (3,)}) == 0


ranges = st.tuples(*[st.integers(0, 40)] * 3).map(lambda sizes: tuple(sorted(sizes)))
profiles = st.lists(st.tuples(ranges, ranges).map(lambda axes: profile(*axes)), min_size=1)


@settings(max_examples=60, deadline=None)
@given(profiles, st.tuples(st.integers(0, 45), st.integers(0, 45)))
def test_the_choice_is_the_best_of_those_that_fit(
    found: list[Profile], shape: tuple[int, int]
) -> None:
    shapes = {"x": shape}
    fitting = [entry for entry in found if entry["x"].admits(shape)]
    if not fitting:
        with pytest.raises(InputError, match="no optimisation profile"):
            choose_profile(found, shapes)
        return
    chosen = found[choose_profile(found, shapes)]
    assert chosen["x"].admits(shape)
    best = min(tuning_distance(entry, shapes) for entry in fitting)
    assert tuning_distance(chosen, shapes) == best
