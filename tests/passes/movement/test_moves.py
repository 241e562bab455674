"""Casts, slices, joins, dimensions of size 1 and transpositions in fewer nodes; every bit stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from surroundings import Pattern, check_kept, surround

from leptonc.passes.movement.casts import holds
from leptonc.passes.movement.movement import SHAPES


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        pytest.param(
            "g (float16[3] x) => (double[3] y) { a = Cast <to = 1> (x)  y = Cast <to = 11> (a) }",
            "g (float16[3] x) => (double[3] y) { y = Cast <to = 11> (x) }",
            "cast-chain",
            id="through a wider float",
        ),
        pytest.param(
            """g (bool[3] x) => (bool[3] y) {
                a = Cast <to = 1> (x)  b = Cast <to = 9> (a)  y = Not(b)
            }""",
            "g (bool[3] x) => (bool[3] y) { y = Not(x) }",
            "cast-chain",
            id="there and back",
        ),
        pytest.param(
            """g (float[9] x) => (float[3] y) <int64[1] a = {1}, int64[1] b = {8},
            int64[1] z = {0}, int64[1] c = {2}, int64[1] d = {5}> {
                s = Slice(x, a, b, z)  y = Slice(s, c, d, z)
            }""",
            """g (float[9] x) => (float[3] y) <int64[1] axes = {0}, int64[1] ends = {6},
            int64[1] starts = {3}> { y = Slice(x, starts, ends, axes) }""",
            "slice-chain",
            id="a part of a part",
        ),
        pytest.param(
            """g (float[b,4] x) => (float[b,4] y) <int64[1] z = {0}, int64[1] e = {4},
            int64[1] l = {-1}> { s = Slice(x, z, e, l)  y = Neg(s) }""",
            "g (float[b,4] x) => (float[b,4] y) { y = Neg(x) }",
            "slice-whole",
            id="all there is",
        ),
        pytest.param(
            """g (float[b,4] x) => (float[b,4] y) {
                p, q = Split <axis = 1, num_outputs = 2> (x)
                c = Concat <axis = -1> (p, q)  y = Neg(c)
            }""",
            "g (float[b,4] x) => (float[b,4] y) { y = Neg(x) }",
            "concat-of-split",
            id="split and joined",
        ),
        pytest.param(
            """g (float[b,4] x) => (float[b,4] y) {
                p = Split <axis = 1, num_outputs = 1> (x)  y = Neg(p)
            }""",
            "g (float[b,4] x) => (float[b,4] y) { y = Neg(x) }",
            "split-in-one",
            id="split into one",
        ),
        pytest.param(
            """g (float[2] p, float[3] q) => (float[7] y) {
                c = Concat <axis = 0> (p, q)  y = Concat <axis = -1> (c, p)
            }""",
            """g (float[2] p, float[3] q) => (float[7] y) {
                y = Concat <axis = -1> (p, q, p)
            }""",
            "concat-chain",
            id="joined twice",
        ),
        pytest.param(
            """g (float[b,4] x, float[1,4] z) => (float[b,4] y) <bool[1] t = {1}> {
                w = Where(t, x, z)  y = Neg(w)
            }""",
            "g (float[b,4] x, float[1,4] z) => (float[b,4] y) { y = Neg(x) }",
            "where-known",
            id="a condition that holds",
        ),
        pytest.param(
            """g (float[3] x) => (float[1,3,1] y) <int64[1] z = {0}, int64[1] l = {-1}> {
                a = Unsqueeze(x, z)  y = Unsqueeze(a, l)
            }""",
            """g (float[3] x) => (float[1,3,1] y) <int64[2] axes = {0, 2}> {
                y = Unsqueeze(x, axes)
            }""",
            "ones-chain",
            id="put in twice",
        ),
        pytest.param(
            """g (float[2,3] x) => (float[3,2] y) {
                a = Transpose <perm = [1, 0]> (x)  b = Relu(a)  c = Transpose <perm = [1, 0]> (b)
                d = Neg(c)  y = Transpose <perm = [1, 0]> (d)
            }""",
            """g (float[2,3] x) => (float[3,2] y) {
                c = Relu(x)  d = Neg(c)  y = Transpose <perm = [1, 0]> (d)
            }""",
            "transposes-cancel",
            id="transposed and back",
        ),
        pytest.param(
            """g (float[b,2,3] x) => (float[b,2,3] y) <float[2] k = {5, 7}> {
                a = Transpose <perm = [0, 2, 1]> (x)  m = Mul(a, k)
                y = Transpose <perm = [0, 2, 1]> (m)
            }""",
            """g (float[b,2,3] x) => (float[b,2,3] y) <float[1,2,1] transposed = {5, 7}> {
                y = Mul(x, transposed)
            }""",
            "transposes-cancel",
            id="with a constant that is transposed too",
        ),
        pytest.param(
            """g (float[b,2,3] x, float[1,2,3] z) => (float[b,3,2] y) {
                a = Transpose <perm = [0, 2, 1]> (x)  b = Transpose <perm = [0, 2, 1]> (z)
                y = Sub(a, b)
            }""",
            """g (float[b,2,3] x, float[1,2,3] z) => (float[b,3,2] y) {
                y_transposes_join = Sub(x, z)
                y = Transpose <perm = [0, 2, 1]> (y_transposes_join)
            }""",
            "transposes-join",
            id="both operands transposed",
        ),
        pytest.param(
            """g (float[2,3] x, float[2,5] z) => (float[8,2] y) {
                a = Transpose <perm = [1, 0]> (x)  b = Transpose <perm = [1, 0]> (z)
                y = Concat <axis = -2> (a, b)
            }""",
            """g (float[2,3] x, float[2,5] z) => (float[8,2] y) {
                y_transposes_join = Concat <axis = 1> (x, z)
                y = Transpose <perm = [1, 0]> (y_transposes_join)
            }""",
            "transposes-join",
            id="all parts transposed",
        ),
        pytest.param(
            """g (float[2,3] x, float[2,3] z) => (float[2,3] y) {
                a = Transpose <perm = [1, 0]> (x)  b = Transpose <perm = [1, 0]> (z)
                c = Mul(a, b)  d = Relu(c)  y = Transpose <perm = [1, 0]> (d)
            }""",
            """g (float[2,3] x, float[2,3] z) => (float[2,3] y) {
                c_transposes_join = Mul(x, z)  y = Relu(c_transposes_join)
            }""",
            "transposes-join",
            id="and sunk into the one that undoes it",
        ),
    ],
)
def test_fewer_nodes_say_the_same(parse, assert_graph, before, after, rule):
    model = parse(before)
    stats = SHAPES.run(model)
    assert dict(stats.counts)[rule] == 1
    assert_graph(model, after)
    assert not SHAPES.run(model).changed


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "g (float[3] x) => (float[3] y) { a = Cast <to = 10> (x)  y = Cast <to = 1> (a) }",
            id="a cast that rounds",
        ),
        pytest.param(
            "g (int32[3] x) => (double[3] y) { a = Cast <to = 1> (x)  y = Cast <to = 11> (a) }",
            id="an integer that a float does not hold",
        ),
        pytest.param(
            """g (float[9] x) => (float[n] y) <int64[1] a = {-3}, int64[1] b = {9},
            int64[1] z = {0}, int64[1] c = {1}, int64[1] d = {2}> {
                s = Slice(x, a, b, z)  y = Slice(s, c, d, z)
            }""",
            id="positions from the end",
        ),
        pytest.param(
            """g (float[4,4] x) => (float[4,4] y) {
                p, q = Split <axis = 1, num_outputs = 2> (x)  y = Concat <axis = 1> (q, p)
            }""",
            id="joined the other way round",
        ),
        pytest.param(
            """g (float[4,4] x) => (float[8,2] y) {
                p, q = Split <axis = 1, num_outputs = 2> (x)  y = Concat <axis = 0> (p, q)
            }""",
            id="joined along another axis",
        ),
        pytest.param(
            """g (float[1,4] x, float[b,4] z) => (float[b,4] y) <bool[1] t = {1}> {
                y = Where(t, x, z)
            }""",
            id="a choice that is repeated",
        ),
        pytest.param(
            """g (float[2,3] x) => (float[3,2] y, float[2,3] c) {
                a = Transpose <perm = [1, 0]> (x)  y = Relu(a)  c = Transpose <perm = [1, 0]> (y)
            }""",
            id="a value between is an output",
        ),
        pytest.param(
            """g (float[2,3,4] x) => (float[p,q,r] y) {
                a = Transpose <perm = [1, 2, 0]> (x)  b = Relu(a)
                y = Transpose <perm = [1, 2, 0]> (b)
            }""",
            id="transpositions that do not cancel",
        ),
        pytest.param(
            """g (float[2,2,4] x, float[2,2,4] z) => (float[p,q,r] y) {
                a = Transpose <perm = [1, 0, 2]> (x)  b = Transpose <perm = [0, 2, 1]> (z)
                y = MatMul(a, b)
            }""",
            id="an operator that cares for the order",
        ),
        pytest.param(
            """g (float[2,2,2] x, float[2,2,2] z) => (float[2,2,2] y) {
                a = Transpose <perm = [1, 0, 2]> (x)  b = Transpose <perm = [0, 2, 1]> (z)
                y = Add(a, b)
            }""",
            id="operands that are transposed differently",
        ),
        pytest.param(
            """g (float[2,2] x, float[2,2] z) => (float[2,2] y, float[2,2] b) {
                a = Transpose <perm = [1, 0]> (x)  b = Transpose <perm = [1, 0]> (z)
                y = Add(a, b)
            }""",
            id="a transposed operand that is an output",
        ),
        pytest.param(
            """g (float[2,2] x) => (float[2,2] y) {
                a = Transpose <perm = [1, 0]> (x)  y = Add(a, a)
            }""",
            id="one transposition for both operands",
        ),
    ],
)
def test_what_says_something_else_stays(parse, assert_graph, text):
    model = parse(text)
    assert not SHAPES.run(model).changed
    assert_graph(model, text)


@pytest.mark.parametrize("narrow", [ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT32])
@pytest.mark.parametrize("wide", [ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.INT64])
def test_holds_is_true_of_the_extremes(narrow, wide):
    limits = np.iinfo(narrow.numpy())
    values = np.array([limits.min, limits.max, limits.max - 1], narrow.numpy())
    with np.errstate(all="ignore"):
        exact = (values.astype(wide.numpy()).astype(np.float64) == values.astype(np.float64)).all()
    assert holds(wide, narrow) == bool(exact)


@st.composite
def moved(draw):
    """A chain of operators that move elements of a small tensor."""
    pattern = Pattern()
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=3))
    array = np.arange(np.prod(sizes), dtype=np.float32).reshape(sizes) - 3
    value = pattern.input(array)
    for _ in range(draw(st.integers(2, 5))):
        kinds = ["slice", "transpose", "pair", "relu", "one", "less", "split", "cast"]
        kind = draw(st.sampled_from(kinds))
        axis = draw(st.integers(0, len(sizes) - 1))
        if kind == "slice":
            bounds = [draw(st.integers(-2, 5)), draw(st.sampled_from([1, 3, 9, 2**31, -1]))]
            names = [pattern.weight(np.array([n], np.int64)) for n in (*bounds, axis)]
            value = pattern.add("Slice", value, *names)
            sizes[axis] = len(range(*slice(*bounds).indices(sizes[axis])))
        elif kind == "transpose":
            order = draw(st.permutations(range(len(sizes))))
            value = pattern.add("Transpose", value, perm=order)
            sizes = [sizes[a] for a in order]
        elif kind == "pair":
            order = draw(st.permutations(range(len(sizes))))
            sides = (value, pattern.add("Neg", value))
            turned = [pattern.add("Transpose", side, perm=order) for side in sides]
            sizes = [sizes[a] for a in order]
            if draw(st.booleans()):
                value = pattern.add("Sub", *turned)
            else:
                value = pattern.add("Concat", *turned, axis=axis - len(sizes))
                sizes[axis] *= 2
        elif kind == "relu":
            value = pattern.add(draw(st.sampled_from(["Relu", "Neg"])), value)
        elif kind == "one" and len(sizes) < 5:
            value = pattern.add("Unsqueeze", value, pattern.weight(np.array([axis], np.int64)))
            sizes.insert(axis, 1)
        elif kind == "less" and sizes[axis] == 1 and len(sizes) > 1:
            value = pattern.add("Squeeze", value, pattern.weight(np.array([axis], np.int64)))
            del sizes[axis]
        elif kind == "split" and sizes[axis] > 1:
            parts = pattern.add("Split", value, outputs=2, axis=axis, num_outputs=2)
            order = parts if draw(st.booleans()) else parts[::-1]
            value = pattern.add("Concat", *order, axis=axis)
        elif kind == "cast":
            wide = draw(st.sampled_from([TensorProto.DOUBLE, TensorProto.INT32]))
            value = pattern.add("Cast", value, to=wide)
            value = pattern.add("Cast", value, to=TensorProto.FLOAT)
    pattern.add("Abs", value)
    return pattern


@settings(max_examples=150, deadline=None)
@given(st.data(), moved())
def test_every_bit_stays(data, pattern):
    def rewrite(model):
        SHAPES.run(model)
        assert not SHAPES.run(model).changed

    check_kept(surround(data.draw, pattern), rewrite, exact=True)
