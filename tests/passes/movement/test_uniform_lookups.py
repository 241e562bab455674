"""Look-ups that find the same everywhere: which go, which stay, and that every bit stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, surround

from leptonc.passes.movement.movement import SHAPES

TABLE = "<float[3,2] w = {1,2,3,4,5,6}, int64 k = {2}>"


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        pytest.param(
            """g (int64[2,n] i) => (float[2,n] y) <float[2,3] c = {7,7,7,7,7,7}> {
                y = GatherElements <axis = 1> (c, i)
            }""",
            """g (int64[2,n] i) => (float[2,n] y) <float element = {7}> {
                y_look_up_uniform = Shape(i)
                y = Expand(element, y_look_up_uniform)
            }""",
            "look-up-uniform",
            id="of equal elements",
        ),
        pytest.param(
            """g (float[1,1] x, float[b,4] z) => (float[b,4] y) <int64[2] o = {1,4}> {
                s = Expand(x, o)  t = Shape(z)  y = Expand(s, t)
            }""",
            "g (float[1,1] x, float[b,4] z) => (float[b,4] y) { t = Shape(z)  y = Expand(x, t) }",
            "expand-chain",
            id="expanded twice",
        ),
        pytest.param(
            f"""g (float[b,2] x) => (float[b,2] y) {TABLE} {{
                s = Shape <end = 1> (x)  i = Expand(k, s)  r = Gather(w, i)  y = Add(x, r)
            }}""",
            """g (float[b,2] x) => (float[b,2] y)
            <int64 row = {2}, float[3,2] w = {1,2,3,4,5,6}> {
                y_look_up_row = Gather <axis = 0> (w, row)
                y = Add(x, y_look_up_row)
            }""",
            "look-up-row",
            id="one row of a table",
        ),
    ],
)
def test_the_look_up_goes(parse, assert_graph, before, after, rule):
    model = parse(before)
    stats = SHAPES.run(model)
    assert dict(stats.counts)[rule] == 1
    assert_graph(model, after)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            """g (int64[2,n] i) => (float[2,n] y) <float[1,2] c = {7,8}> {
                y = GatherElements <axis = 1> (c, i)
            }""",
            id="elements that differ",
        ),
        pytest.param(
            """g (int64[2,n] i) => (float[2,n] y) <float[1,2] c = {0,-0.0}> {
                y = GatherElements <axis = 1> (c, i)
            }""",
            id="zeros of both signs",
        ),
        pytest.param(
            """g (int64[2,n] i, float[1,2] c) => (float[2,n] y) {
                y = GatherElements <axis = 1> (c, i)
            }""",
            id="elements that are given",
        ),
        pytest.param(
            """g (float[1,n] x, int64[2] o, int64[2] t) => (float[b,m] y) {
                s = Expand(x, o)  y = Expand(s, t)
            }""",
            id="expanded to an unknown shape",
        ),
        pytest.param(
            f"""g (float[1,2] x, float[b,2] z) => (float[b,2] y) {TABLE} {{
                s = Shape <end = 1> (z)  i = Expand(k, s)  r = Gather(w, i)  y = Add(x, r)
            }}""",
            id="a sum that takes its shape from the rows",
        ),
        pytest.param(
            """g (float[b,2] x) => (float[b,2] y) <float[2,2] w = {1,2,3,4}, int64 k = {2}> {
                s = Shape <end = 1> (x)  i = Expand(k, s)  r = Gather(w, i)  y = Add(x, r)
            }""",
            id="a row that the table has not",
        ),
        pytest.param(
            f"""g (float[2,b] x) => (float[2,b] y) {TABLE} {{
                s = Shape <start = 1> (x)  i = Expand(k, s)  r = Gather <axis = 1> (v, i)
                y = Add(x, r)
            }}""".replace("int64 k = {2}", "float[2,3] v = {1,2,3,4,5,6}, int64 k = {2}"),
            id="a column",
        ),
    ],
)
def test_other_look_ups_stay(parse, text):
    assert not SHAPES.run(parse(text)).changed


@st.composite
def looked_up(draw):
    """A sum with a row of a table, or with elements of a constant that are mostly equal."""
    pattern = Pattern()
    batch, width, rows = (draw(st.integers(1, 3)) for _ in range(3))
    like = draw(st.sampled_from([(batch, width), (1, width)]))
    x = pattern.input(np.arange(np.prod(like), dtype=np.float32).reshape(like))
    if draw(st.booleans()):
        z = pattern.input(np.zeros((batch, width), np.float32))
        table = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
        k = np.full(draw(st.sampled_from([(), (1,)])), draw(st.integers(-rows, rows - 1)))
        index = pattern.add("Expand", pattern.weight(k), pattern.add("Shape", z, end=1))
        found = pattern.add("Gather", pattern.weight(table), index)
    else:
        elements = np.full((batch, 3), 5, np.float32)
        elements[0, 2] += draw(st.integers(0, 1))
        at = pattern.input(np.full((batch, width), 2, np.int64))
        found = pattern.add("GatherElements", pattern.weight(elements), at, axis=1)
        if draw(st.booleans()):
            found = pattern.add("Expand", found, pattern.weight(np.array([2, 1, 1])))
    pattern.add(draw(st.sampled_from(["Add", "Sub", "Mul"])), x, found)
    return pattern


@settings(max_examples=60, deadline=None)
@given(st.data(), looked_up())
def test_every_bit_stays(data, pattern):
    check_kept(surround(data.draw, pattern), lambda model: SHAPES.run(model), exact=True)
