"""Expands and conditions that change nothing; every bit stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, surround

from leptonc.passes.movement.movement import SHAPES


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        (
            """g (float[b,8] x) => (float[b,8] y) {
                s = Shape(x)  e = Expand(x, s)  y = Neg(e)
            }""",
            "g (float[b,8] x) => (float[b,8] y) { y = Neg(x) }",
            "expand-known",
        ),
        (
            """g (float[b,8] x, float[1,8] z) => (float[b,8] y) {
                s = Shape(x)  e = Expand(z, s)  y = Add(e, x)
            }""",
            "g (float[b,8] x, float[1,8] z) => (float[b,8] y) { y = Add(z, x) }",
            "expand-needless",
        ),
        (
            """g (bool[b,8] x) => (bool[b,8] y) <bool t = {1}> { a = And(t, x)  y = Not(a) }""",
            "g (bool[b,8] x) => (bool[b,8] y) { y = Not(x) }",
            "and-true",
        ),
        (
            """g (bool[1,s] x) => (bool[1,s] y) <int64 o = {0}, int64 i = {1}, int64[1] z = {0}> {
                v = Shape <start = 1> (x)  n = Squeeze(v)  r = Range(o, n, i)
                u = Unsqueeze(r, z)  c = GreaterOrEqual(u, o)  a = And(c, x)  y = Not(a)
            }""",
            "g (bool[1,s] x) => (bool[1,s] y) { y = Not(x) }",
            "and-true",
        ),
    ],
)
def test_what_changes_nothing_goes(parse, assert_graph, before, after, rule):
    model = parse(before)
    stats = SHAPES.run(model)
    assert dict(stats.counts)[rule] == 1
    assert_graph(model, after)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            """g (float[1,8] x, float[b,8] z) => (float[b,8] y) {
                s = Shape(z)  e = Expand(x, s)  y = Neg(e)
            }""",
            id="it repeats rows",
        ),
        pytest.param(
            """g (float[b,8] x, float[c,8] z) => (float[n,8] y) {
                s = Shape(z)  e = Expand(x, s)  y = Add(e, x)
            }""",
            id="the sum could have fewer rows",
        ),
        pytest.param(
            """g (bool[1,8] x) => (bool[2,8] y) <bool[2,1] t = {1, 1}> { y = And(t, x) }""",
            id="the condition repeats rows",
        ),
        pytest.param(
            """g (bool[2] x) => (bool[2] y) <bool[2] t = {1, 0}> { y = And(t, x) }""",
            id="the condition is not all true",
        ),
        pytest.param(
            """g (bool[1,s] x) => (bool[1,s] y) <int64 o = {0}, int64 i = {1}, int64[1] z = {0}> {
                v = Shape <start = 1> (x)  n = Squeeze(v)  r = Range(o, n, i)
                u = Unsqueeze(r, z)  c = GreaterOrEqual(u, i)  y = And(c, x)
            }""",
            id="position 0 is below the bound",
        ),
    ],
)
def test_what_may_change_something_stays(parse, assert_graph, text):
    model = parse(text)
    assert not SHAPES.run(model).changed
    assert_graph(model, text)


@st.composite
def expanded(draw):
    pattern = Pattern()
    full = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    narrow = [draw(st.sampled_from([size, 1])) for size in full]
    rng = np.random.default_rng(0)
    wide = pattern.input(rng.normal(size=full).astype(np.float32))
    value = pattern.input(rng.normal(size=narrow).astype(np.float32))
    large = pattern.add("Expand", value, pattern.add("Shape", wide))
    operator = draw(st.sampled_from(["Add", "Mul", "Sub", "Max", "Less", "Neg"]))
    pair = [large, wide] if draw(st.booleans()) else [wide, large]
    pattern.add(operator, *(pair if operator != "Neg" else [large]))
    return pattern


@settings(max_examples=60, deadline=None)
@given(st.data(), expanded())
def test_every_bit_stays(data, pattern):
    def rewrite(model):
        SHAPES.run(model)
        assert not SHAPES.run(model).changed

    check_kept(surround(data.draw, pattern), rewrite, exact=True)
