"""Parts of a tensor in one go: which are, which are not, and that every bit stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, surround

from leptonc.passes.lower.slices import LOWER_SLICES

ENDS = "int64[1] z = {0}, int64[1] a = {1}, int64[1] b = {3}, int64[1] n = {9}, int64[1] m = {-1}"


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        pytest.param(
            f"""g (float[b,2,3] x) => (float[b,3] y) <{ENDS}> {{
                s = Slice(x, z, a, a)  y = Squeeze(s, a)
            }}""",
            """g (float[b,2,3] x) => (float[b,3] y) <int64 index = {0}> {
                y = Gather <axis = 1> (x, index)
            }""",
            "slice-element",
            id="the first",
        ),
        pytest.param(
            f"""g (float[b,2,3] x) => (float[b,2] y) <{ENDS}, int64[1] e = {{{2**63 - 1}}}> {{
                s = Slice(x, m, e, m)  y = Squeeze(s, m)
            }}""",
            """g (float[b,2,3] x) => (float[b,2] y) <int64 index = {-1}> {
                y = Gather <axis = 2> (x, index)
            }""",
            "slice-element",
            id="the last",
        ),
        pytest.param(
            f"""g (float[4,b] x) => (float[3,b] y, float[1,b] u) <{ENDS}> {{
                y = Slice(x, a, n, z)  u = Slice(x, z, a, z)
            }}""",
            """g (float[4,b] x) => (float[3,b] y, float[1,b] u) <int64[2] sizes = {1,3}> {
                u, y = Split <axis = 0> (x, sizes)
            }""",
            "slices-split",
            id="two parts",
        ),
        pytest.param(
            f"""g (float[b,5] x) => (float[b,1] u, float[b,2] v, float[b,2] w) <{ENDS}> {{
                u = Slice(x, z, a, m)  v = Slice(x, a, b, m)  w = Slice(x, b, n, a)
            }}""",
            """g (float[b,5] x) => (float[b,1] u, float[b,2] v, float[b,2] w)
            <int64[3] sizes = {1,2,2}> { u, v, w = Split <axis = 1> (x, sizes) }""",
            "slices-split",
            id="three parts",
        ),
    ],
)
def test_they_are_taken_in_one_go(parse, assert_graph, before, after, rule):
    model = parse(before)
    assert dict(LOWER_SLICES.run(model).counts) == {rule: 1}
    assert_graph(model, after)
    assert not LOWER_SLICES.run(model).changed


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            f"""g (float[4,1] x) => (float[4] y) <{ENDS}> {{
                s = Slice(x, a, b, z)  y = Squeeze(s, a)
            }}""",
            id="another axis is dropped",
        ),
        pytest.param(
            f"""g (float[b,1] x) => (float[c] y) <{ENDS}> {{
                s = Slice(x, z, b, a)  y = Squeeze(s, a)
            }}""",
            id="as many as there are",
        ),
        pytest.param(
            f"""g (float[4,b] x) => (float[1,b] u, float[1,b] v) <{ENDS}> {{
                u = Slice(x, z, a, z)  v = Slice(x, b, n, z)
            }}""",
            id="with a gap",
        ),
        pytest.param(
            f"""g (float[4,b] x) => (float[3,b] u, float[3,b] v) <{ENDS}> {{
                u = Slice(x, z, b, z)  v = Slice(x, a, n, z)
            }}""",
            id="with an overlap",
        ),
        pytest.param(
            f"""g (float[c,b] x) => (float[p,b] u, float[q,b] v) <{ENDS}> {{
                u = Slice(x, z, b, z)  v = Slice(x, b, n, z)
            }}""",
            id="of an unknown size",
        ),
        pytest.param(
            f"""g (float[4,4] x) => (float[1,4] u, float[4,3] v) <{ENDS}> {{
                u = Slice(x, z, a, z)  v = Slice(x, a, n, a)
            }}""",
            id="along two axes",
        ),
    ],
)
def test_others_stay(parse, text):
    assert not LOWER_SLICES.run(parse(text)).changed


def test_a_slice_that_is_read_elsewhere_is_a_near_miss(parse):
    stats = LOWER_SLICES.run(
        parse(f"""g (float[2,3] x) => (float[3] y, float[1,3] s) <{ENDS}> {{
            s = Slice(x, z, a, z)  y = Squeeze(s, z)
        }}""")
    )
    assert [(each.rule, each.reason) for each in stats.refused] == [
        ("slice-element", "'s' is an output of the graph")
    ]


@st.composite
def parts(draw):
    """Slices of one tensor, with and without dropping the axis."""
    pattern = Pattern()
    size = draw(st.integers(1, 5))
    x = pattern.input(np.arange(2 * size, dtype=np.float32).reshape(2, size))
    cuts = sorted({0, size, *draw(st.lists(st.integers(-1, size), max_size=3))})
    for start, end in zip(cuts, cuts[1:], strict=False):
        if draw(st.booleans()) and start > 0:
            start -= size
        if draw(st.booleans()) and end == size:
            end = draw(st.sampled_from([size, 2**31 - 1, 2**63 - 1]))
        bounds = [pattern.weight(np.array([each])) for each in (start, end, 1)]
        found = pattern.add("Slice", x, *bounds)
        if len(range(*slice(start, end).indices(size))) == 1 and draw(st.booleans()):
            found = pattern.add("Squeeze", found, pattern.weight(np.array([1])))
        pattern.outputs.append(pattern.add("Neg", found))
    return pattern


@settings(max_examples=80, deadline=None)
@given(st.data(), parts())
def test_every_bit_stays(data, pattern):
    check_kept(surround(data.draw, pattern), lambda model: LOWER_SLICES.run(model), exact=True)
