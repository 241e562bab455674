"""Reshapes that follow from sizes known by name; every bit stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, surround

from leptonc.passes.movement.movement import SHAPES


def shapes(model):
    return SHAPES.run(model)


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        pytest.param(
            """g (float[b,s,8] x) => (float[b,s,8] y) <int64[1] h = {8}> {
                a = Shape <start = 0, end = 2> (x)  t = Concat <axis = 0> (a, h)
                v = Reshape(x, t)  y = Neg(v)
            }""",
            "g (float[b,s,8] x) => (float[b,s,8] y) { y = Neg(x) }",
            "reshape-known",
            id="a shape that is there already",
        ),
        pytest.param(
            """g (float[b,s,8] x) => (float[b,s,2,4] y) <int64[2] h = {-1, 4}> {
                a = Shape <start = 0, end = 2> (x)  t = Concat <axis = 0> (a, h)  y = Reshape(x, t)
            }""",
            """g (float[b,s,8] x) => (float[b,s,2,4] y) <int64[4] shape = {0, 0, 2, 4}> {
                y = Reshape(x, shape)
            }""",
            "reshape-known",
            id="sizes are copied and the last one computed",
        ),
        pytest.param(
            """g (float[b,s,8] x) => (float[n,8] y) <int64[1] h = {8}, int64[1] m = {-1}> {
                z = Neg(x)  a = Shape <start = 2> (z)  t = Concat <axis = 0> (m, a)
                y = Reshape(z, t)
            }""",
            """g (float[b,s,8] x) => (float[n,8] y) <int64[2] shape = {-1, 8}> {
                z = Neg(x)  y = Reshape(z, shape)
            }""",
            "reshape-known",
            id="one size is left over",
        ),
        pytest.param(
            """g (float[b,4,s,6] x) => (float[b,4,6,s] y) <int64[3] m = {-1, 5, 6}, int64[1] f = {4}> {
                a = Shape <start = 0, end = 1> (x)  c = Shape <start = 2, end = 3> (x)
                d = Shape <start = 3, end = 4> (x)  k = Constant <value = int64[1] {-1}> ()
                p = Concat <axis = 0> (k, c, d)  v = Reshape(x, p)
                w = Transpose <perm = [0, 2, 1]> (v)
                q = Concat <axis = 0> (a, f, d, c)  y = Reshape(w, q)
            }""",
            "g (float[b,4,s,6] x) => (float[b,4,6,s] y) { y = Transpose <perm = [0, 1, 3, 2]> (x) }",
            "reshape-round-trip",
            id="the last two of four dimensions are swapped in three nodes",
        ),
    ],
)
def test_what_is_known_goes(parse, assert_graph, before, after, rule):
    model = parse(before)
    stats = shapes(model)
    assert dict(stats.counts)[rule] == 1
    assert_graph(model, after)
    assert not shapes(model).changed


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            """g (float[b,s,8] x, int64[3] t) => (float[p,q,r] y) { y = Reshape(x, t) }""",
            id="a target that is an input",
        ),
        pytest.param(
            """g (float[b,s,8] x, float[c,s] z) => (float[p,q,8] y) <int64[2] h = {-1, 8}> {
                a = Shape <start = 0, end = 1> (z)  t = Concat <axis = 0> (a, h)  y = Reshape(x, t)
            }""",
            id="the size of another input",
        ),
    ],
)
def test_what_is_not_known_stays(parse, assert_graph, text):
    model = parse(text)
    assert not shapes(model).changed
    assert_graph(model, text)


@pytest.mark.parametrize(
    ("final", "order"),
    [
        pytest.param("a, f, c, d", "0, 2, 1", id="the last Reshape undoes the transposition"),
        pytest.param("a, f, d, c", "1, 0, 2", id="the merged dimension moves"),
    ],
)
def test_a_round_trip_that_is_none_keeps_its_value(parse, run, final, order):
    text = f"""g (float[b,4,s,6] x) => (float[p,q,r,t] y) <int64[1] f = {{4}}> {{
        a = Shape <start = 0, end = 1> (x)  c = Shape <start = 2, end = 3> (x)
        d = Shape <start = 3, end = 4> (x)  k = Constant <value = int64[1] {{-1}}> ()
        p1 = Concat <axis = 0> (k, c, d)  v = Reshape(x, p1)
        w = Transpose <perm = [{order}]> (v)
        q1 = Concat <axis = 0> ({final})  y = Reshape(w, q1)
    }}"""
    feeds = {"x": np.arange(2 * 4 * 3 * 6, dtype=np.float32).reshape(2, 4, 3, 6)}
    expected = run(parse(text), feeds)[0]
    model = parse(text)
    assert "reshape-round-trip" not in dict(shapes(model).counts)
    np.testing.assert_array_equal(run(model, feeds)[0], expected)


@st.composite
def reshaped(draw):
    """Reshapes by targets that are put together from the sizes of the input."""
    pattern = Pattern()
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    value = pattern.input(np.arange(np.prod(sizes), dtype=np.float32).reshape(sizes))
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            order = draw(st.permutations(range(len(sizes))))
            value = pattern.add("Transpose", value, perm=order)
            sizes = [sizes[axis] for axis in order]
            continue
        cut = draw(st.integers(1, len(sizes)))
        merged = draw(st.booleans()) and cut < len(sizes)
        parts = [
            pattern.add("Shape", value, start=axis, end=axis + 1) for axis in range(len(sizes))
        ]
        if merged:
            rest = pattern.weight(np.array([-1], np.int64))
            target = pattern.add("Concat", rest, *parts[cut:], axis=0)
            sizes = [int(np.prod(sizes[:cut])), *sizes[cut:]]
        else:
            one = pattern.weight(np.array([1], np.int64))
            target = pattern.add("Concat", *parts[:cut], one, *parts[cut:], axis=0)
            sizes = [*sizes[:cut], 1, *sizes[cut:]]
        value = pattern.add("Reshape", value, target, allowzero=draw(st.sampled_from([0, 1])))
    pattern.add("Neg", value)
    return pattern


@settings(max_examples=80, deadline=None)
@given(st.data(), reshaped())
def test_every_bit_stays(data, pattern):
    def rewrite(model):
        shapes(model)
        assert not shapes(model).changed

    check_kept(surround(data.draw, pattern), rewrite, exact=True)
