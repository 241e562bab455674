"""Gathers by all positions become what they gather from; every bit stays."""

from __future__ import annotations

import numpy as np
import pytest

from leptonc.passes.movement.movement import SHAPES

GRID = """g (bool[b,s] x{inputs}) => (bool[b,1,1,s] y)
<int64 o = {{0}}, int64 i = {{{step}}}, int64[3] ab = {{1, 2, 3}}, int64[3] bb = {{0, 1, 2}}, int64[1] m = {{-1}}> {{
    s0 = Shape <start = 0, end = 1> ({counted})  n0 = Squeeze(s0)  r0 = Range(o, n0, i)
    s1 = Shape <start = 1, end = 2> (x)  n1 = Squeeze(s1)  r1 = Range({start}, n1, i)
    u0 = Unsqueeze(r0, ab)  u1 = Unsqueeze(r1, bb)
    g0 = Max(u0, u1)  sh = Shape(g0)
    e0 = Expand(u0, sh)  e1 = Expand(u1, sh)
    p0 = Unsqueeze(e0, m)  p1 = Unsqueeze(e1, m)
    index = Concat <axis = -1> ({order})
    y = GatherND(x, index)
}}"""
PLAIN = {"inputs": "", "step": 1, "counted": "x", "start": "o", "order": "p0, p1"}


def test_a_gather_by_all_positions_is_an_unsqueeze(parse, assert_graph):
    model = parse(GRID.format(**PLAIN))
    stats = SHAPES.run(model)
    assert dict(stats.counts)["index-grid"] == 1
    assert_graph(
        model,
        """g (bool[b,s] x) => (bool[b,1,1,s] y) <int64[2] axes = {1, 2}> {
            y = Unsqueeze(x, axes)
        }""",
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"order": "p1, p0"}, "the axes are taken in another order"),
        ({"inputs": ", bool[c] z", "counted": "z"}, "the positions are not known to be all"),
        ({"step": 2}, None),
        ({"start": "i"}, None),
    ],
)
def test_other_gathers_stay(parse, change, reason):
    model = parse(GRID.format(**{**PLAIN, **change}))
    stats = SHAPES.run(model)
    assert "index-grid" not in dict(stats.counts)
    found = [refusal.reason for refusal in stats.refused if refusal.rule == "index-grid"]
    assert bool(found) == (reason is not None)
    assert reason is None or found[0].startswith(reason)


@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (4, 1), (3, 3)])
def test_every_bit_stays(parse, run, shape):
    text = GRID.format(**PLAIN)
    feeds = {"x": np.random.default_rng(0).random(shape) > 0.5}
    model = parse(text)
    SHAPES.run(model)
    np.testing.assert_array_equal(run(model, feeds)[0], run(parse(text), feeds)[0])
