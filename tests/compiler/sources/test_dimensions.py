from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonc.compiler.errors import RecipeError
from leptonc.compiler.sources.dimensions import (
    DynamicDim,
    example_sizes,
    parse_dynamic_axes,
    probe_sizes,
    resize_inputs,
)

INPUTS = {"ids": np.arange(10).reshape(2, 5), "mask": np.ones((2, 5), dtype=np.float32)}


def test_names_and_bounds_are_read():
    axes = parse_dynamic_axes({"ids": {0: ("batch", 1, 8), 1: "length"}}, INPUTS)
    assert axes == {"ids": {0: DynamicDim("batch", 1, 8), 1: DynamicDim("length", 1, None)}}
    assert example_sizes(INPUTS, axes) == {"batch": 2, "length": 5}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (["ids"], "not a dict"),
        ({"tokens": {0: "batch"}}, "'tokens' that example_inputs() does not have"),
        ({"ids": "batch"}, "not a dict of axes"),
        ({"ids": {2: "batch"}}, "no such axis"),
        ({"ids": {-1: "batch"}}, "no such axis"),
        ({"ids": {0: 3}}, "not a dimension"),
        ({"ids": {0: ("batch", 1)}}, "not a dimension"),
        ({"ids": {0: "batch size"}}, "not an identifier"),
        ({"ids": {0: ("batch", 0, 8)}}, "not a positive integer"),
        ({"ids": {0: ("batch", 4, 3)}}, "below the lower bound"),
        ({"ids": {0: ("batch", 3, 8)}}, "outside 3..8"),
        ({"ids": {0: ("n", 1, 8)}, "mask": {0: ("n", 1, 9)}}, "1..8 elsewhere"),
        ({"ids": {0: "n", 1: "n"}}, "size 5 here and 2 elsewhere"),
        ({"ids": {0: ("n", 1, 10**30)}}, "exceed any size"),
    ],
)
def test_a_wrong_declaration_is_refused(declared, message):
    with pytest.raises(RecipeError) as caught:
        parse_dynamic_axes(declared, INPUTS)
    assert message in str(caught.value)
    assert caught.value.exit_code == 3


@given(
    size=st.integers(1, 9),
    low=st.integers(1, 9),
    room=st.one_of(st.none(), st.integers(0, 9)),
    other=st.integers(1, 9),
)
def test_probes_stay_inside_the_bounds_and_differ_from_the_example(size, low, room, other):
    low = min(low, size)
    high = None if room is None else size + room
    inputs = {"x": np.zeros((size, other), dtype=np.float32)}
    axes = parse_dynamic_axes({"x": {0: ("n", low, high), 1: "m"}}, inputs)
    probes = probe_sizes(inputs, axes)
    example = example_sizes(inputs, axes)
    assert len(probes) == 2
    assert probes[0] != probes[1]
    for probe in probes:
        assert probe != example
        rows = probe.get("n", size)
        assert low <= rows <= (high or rows)
        assert ("n" in probe) == (low != high)
        resized = resize_inputs(inputs, axes, probe)
        assert resized["x"].shape == (rows, probe["m"])


def test_without_dynamic_dimensions_there_is_nothing_to_probe():
    assert probe_sizes(INPUTS, {}) == []


def test_growing_repeats_valid_values_but_not_whole_rows():
    axes = parse_dynamic_axes({"ids": {0: "batch"}}, INPUTS)
    grown = resize_inputs(INPUTS, axes, {"batch": 4})["ids"]
    assert set(grown.ravel()) <= set(INPUTS["ids"].ravel())
    assert not np.array_equal(grown[0], grown[2])
    assert np.array_equal(grown[:2], INPUTS["ids"])
