"""Tables of cosines and sines: which are proven to hold each column twice, and which are not."""

from __future__ import annotations

import numpy as np
import pytest

from leptonc.passes.fusions.rotary.fuse import FUSE_ROTARY
from leptonc.passes.pipeline import Context

HEAD = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1, "test" : 1]>\n'
HALVES = """
    low, high = Split<axis: int = -1, num_outputs: int = 2>(x)  negative = Neg(high)
    turned = Concat<axis: int = -1>(negative, low)
"""
PAIRS = """
    even = Slice(x, zero, end, last, two)  odd = Slice(x, one, end, last, two)
    negative = Neg(odd)  first = Unsqueeze(negative, last)  second = Unsqueeze(even, last)
    stack = Concat<axis: int = -1>(first, second)  turned = Reshape(stack, whole)
"""
SUM = "straight = Mul(x, cos)  across = Mul(turned, sin)  y = Add(straight, across)"
WEIGHTS = """
    int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] last = {-1},
    int64[1] end = {9}, int64[4] whole = {2, 2, 3, 4}, int64[1] three = {3}, float half = {0.5},
    float single = {1}, int64[1] ones = {1}, int64[3] twice = {1, 1, 2}, int64[3] thrice = {1, 1, 3},
    int64[3] rows = {1, 3, 4}, int64[4] wide = {1, 3, 2, 2}, float[4] ramp = {1, 2, 3, 4},
    int64[1] four = {4}, int64[4] mirror = {0, 1, 0, 1}
"""


def numbers(values):
    return "{" + ", ".join(str(float(value)) for value in values) + "}"


ANGLES = np.arange(10).reshape(5, 2) / 4
DOUBLED = np.concatenate([ANGLES, ANGLES], -1)
TABLE = f"float[5,4] table = {numbers(DOUBLED.ravel())}"
SIDE_BY_SIDE = f"float[5,4] table = {numbers(ANGLES.repeat(2, -1).ravel())}"


def model(steps, weights="", *, pairs=False):
    """Rotate by cosines and sines that `steps` computes; @ stands for the function."""
    tables = "\n".join(
        steps.replace("OUT", out).replace("@", function).replace("#", out)
        for out, function in (("cos", "Cos"), ("sin", "Sin"))
    )
    return (
        f"{HEAD} g (float[2,2,3,4] x, float[1,3,2] angles, int64[1,3] ids) => (float[2,2,3,4] y)"
        f"<{WEIGHTS}{', ' + weights if weights else ''}>"
        f"{{ {tables} {PAIRS if pairs else HALVES} {SUM} }}"
    )


def feeds():
    random = np.random.default_rng(0)
    return {
        "x": random.normal(size=(2, 2, 3, 4)).astype(np.float32),
        "angles": random.normal(size=(1, 3, 2)).astype(np.float32),
        "ids": np.array([[4, 0, 2]]),
    }


CONCAT = "both# = Concat<axis: int = -1>(angles, angles)  "
END = "f# = @(both#)  OUT = Unsqueeze(f#, one)"


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
@pytest.mark.parametrize(
    ("steps", "weights", "pairs"),
    [
        (CONCAT + END, "", False),
        (CONCAT + "n# = Neg(both#)  f# = @(n#)  OUT = Unsqueeze(f#, one)", "", False),
        ("both# = Tile(angles, twice)  " + END, "", False),
        (
            CONCAT + "f# = @(both#)  s# = Mul(half, f#)  OUT = Unsqueeze(s#, one)",
            "",
            False,
        ),
        (
            CONCAT + "f# = @(both#)  s# = Mul(f#, single)  OUT = Unsqueeze(s#, one)",
            "",
            False,
        ),
        (
            CONCAT + "f# = @(both#)  s# = Div(single, f#)  OUT = Unsqueeze(s#, one)",
            "",
            False,
        ),
        (
            CONCAT + "f# = @(both#)  s# = Sub(f#, half)  OUT = Unsqueeze(s#, one)",
            "",
            False,
        ),
        ("u# = Unsqueeze(angles, one)  both# = Concat<axis: int = 3>(u#, u#)  OUT = @(both#)", "", False),
        (CONCAT + "f# = @(both#)  s# = Squeeze(f#, zero)  OUT = Unsqueeze(s#, zero_one)",
         "int64[2] zero_one = {0, 1}", False),
        ("g# = Gather(table, ids)  f# = @(g#)  OUT = Unsqueeze(f#, one)", TABLE, False),
        ("g# = Gather(table, ids)  f# = @(g#)  OUT = Unsqueeze(f#, one)", SIDE_BY_SIDE, True),
        ("s# = Slice(table, one, four, zero)  f# = @(s#)  OUT = Unsqueeze(f#, zero_one)",
         TABLE + ", int64[2] zero_one = {0, 1}", False),
        ("u# = Unsqueeze(angles, three)  w# = Concat<axis: int = -1>(u#, u#)"
         "  both# = Reshape(w#, rows)  " + END, "", True),
        ("u# = Unsqueeze(angles, last)  w# = Expand(u#, wide)  both# = Reshape(w#, rows)  " + END,
         "", True),
    ],
)  # fmt: skip
def test_a_table_that_holds_each_column_twice(parse, run, steps, weights, pairs, target):
    text = model(steps, weights, pairs=pairs)
    found = parse(text)
    stats = FUSE_ROTARY.run(found, Context(target))
    assert stats.changed == 1
    turn = found.graph.outputs[0].producer()
    assert turn.op_type == "RotaryEmbedding"
    for table in turn.inputs[-2:]:
        assert table.shape is None or table.shape[-1] == 2
    expected, got = run(parse(text), feeds())[0], run(found, feeds())[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


UNEQUAL = f"float[5,4] table = {numbers(np.arange(20) / 8)}"
GATHER = "g# = Gather(table, ids)  f# = @(g#)  OUT = Unsqueeze(f#, one)"


@pytest.mark.parametrize(
    ("steps", "weights", "pairs"),
    [
        pytest.param(GATHER, UNEQUAL, False, id="columns that differ"),
        pytest.param(GATHER, SIDE_BY_SIDE, False, id="neighbours that are equal"),
        pytest.param(GATHER, TABLE, True, id="halves that are equal"),
        pytest.param(CONCAT + END, "", True, id="halves for neighbours"),
        pytest.param(
            "u# = Unsqueeze(angles, three)  w# = Concat<axis: int = -1>(u#, u#)"
            "  both# = Reshape(w#, rows)  " + END,
            "",
            False,
            id="neighbours for halves",
        ),
        pytest.param(
            "n# = Neg(angles)  both# = Concat<axis: int = -1>(angles, n#)  " + END,
            "",
            False,
            id="two values side by side",
        ),
        pytest.param(
            "c# = Cos(angles)  one#, two# = Split<axis: int = 2, num_outputs: int = 2>(c#)"
            "  both# = Concat<axis: int = -1>(one#, two#, one#, two#)  " + END,
            "",
            False,
            id="four parts",
        ),
        pytest.param(CONCAT + "r# = Mul(both#, ramp)  f# = @(r#)  OUT = Unsqueeze(f#, one)", "",
                     False, id="a factor for each column"),
        pytest.param(CONCAT + "r# = Abs(both#)  f# = @(r#)  OUT = Unsqueeze(f#, one)", "",
                     False, id="a function that is not known"),
        pytest.param(CONCAT + "r# = test.Cos(both#)  s# = Reshape(r#, rows)  OUT = Unsqueeze(s#, one)",
                     "", False, id="a function of another domain"),
        pytest.param(CONCAT + "r# = Gather<axis: int = 2>(both#, mirror)  f# = @(r#)"
                     "  OUT = Unsqueeze(f#, one)", "", False, id="columns that are gathered"),
        pytest.param("w# = Concat<axis: int = -1>(angles, angles, angles)"
                     "  both# = Slice(w#, one, five, last)  " + END, "int64[1] five = {5}", False,
                     id="columns that are cut"),
        pytest.param("t# = Tile(angles, thrice)  both# = Slice(t#, zero, four, last)  " + END, "",
                     False, id="three times the same"),
        pytest.param("u# = Unsqueeze(angles, three)  w# = Expand(u#, wide)"
                     "  t# = Transpose<perm: ints = [0, 1, 3, 2]>(w#)  both# = Reshape(t#, rows)  "
                     + END, "", True, id="halves that come by way of pairs"),
        pytest.param("u# = Unsqueeze(angles, two)  w# = Concat<axis: int = 2>(u#, u#)"
                     "  both# = Reshape(w#, rows)  " + END, "", True, id="rows that are doubled"),
        pytest.param("u# = Unsqueeze(angles, three)  v# = Neg(u#)"
                     "  w# = Concat<axis: int = -1>(u#, v#)  both# = Reshape(w#, rows)  " + END,
                     "", True, id="pairs of two values"),
        pytest.param("w# = Reshape(angles, thin)  v# = Expand(w#, wide)  both# = Reshape(v#, rows)  "
                     + END, "int64[4] thin = {1, 3, 2, 1}", True, id="no axis that was added"),
        pytest.param(CONCAT + "u# = Unsqueeze(both#, zero)  g# = Gather(u#, z)  f# = @(g#)"
                     "  OUT = Unsqueeze(f#, one)", "int64 z = {0}", False,
                     id="taken along an axis that was added"),
    ],
)  # fmt: skip
def test_a_table_that_is_not_proven(parse, steps, weights, pairs):
    stats = FUSE_ROTARY.run(parse(model(steps, weights, pairs=pairs)))
    assert not stats.changed
    assert [refusal.reason for refusal in stats.refused] == [
        "the cosines 'cos' are not proven to hold each column twice"
    ]
