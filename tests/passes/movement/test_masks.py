"""What exporters build masks with: which nodes go, which stay, and that every bit stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, surround

from leptonc.passes.movement.movement import MASK_RULES, SHAPES
from leptonc.passes.rewriting.rewriter import apply_rules

LOW = "float z = {0}, float l = {-1e9}"
# b + s * S for each row b and column s, and the elements of keep[B, S] one after the other.
FLAT = """
    rows = Shape <end = 1> (keep)  columns = Shape <start = 1> (keep)
    c = Squeeze(columns)  r = Squeeze(rows)
    s = Range(o, c, i)  b = Range(o, r, i)
    bs = Unsqueeze(b, u)  ss = Unsqueeze(s, t)
"""
MATRIX = FLAT.replace("(b, u)", "(b, f)").replace("(s, t)", "(s, g)")
FLAT_WEIGHTS = """
    int64[1] g = {0}, int64 o = {0}, int64 i = {1}, int64[1] f = {-1}, int64[3] u = {1,2,3},
    int64[3] t = {0,1,2}, int64[4] e = {1,2,1,1}
"""


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        pytest.param(
            """g (float[n] x, float16[2] z) => (float16[n] y) { y = CastLike(x, z) }""",
            """g (float[n] x, float16[2] z) => (float16[n] y) { y = Cast <to = 10> (x) }""",
            "cast-like-known",
            id="a type that is known",
        ),
        pytest.param(
            "g (int64[n] x) => (int64[n] y) <int64 z = {0}> { a = Add(z, x)  y = Neg(a) }",
            "g (int64[n] x) => (int64[n] y) { y = Neg(x) }",
            "neutral-element",
            id="a whole number and 0",
        ),
        pytest.param(
            "g (float[n,2] x) => (float[n,2] y) <float[1,2] o = {1,1}> "
            "{ a = Mul(o, x)  y = Neg(a) }",
            "g (float[n,2] x) => (float[n,2] y) { y = Neg(x) }",
            "neutral-element",
            id="times 1",
        ),
        pytest.param(
            "g (float[n] x) => (float[n] y) <float o = {1}> { a = Div(x, o)  y = Neg(a) }",
            "g (float[n] x) => (float[n] y) { y = Neg(x) }",
            "neutral-element",
            id="by 1",
        ),
        pytest.param(
            "g (float[n] x) => (float[n] y) <float o = {0}> { a = Sub(x, o)  y = Neg(a) }",
            "g (float[n] x) => (float[n] y) { y = Neg(x) }",
            "neutral-element",
            id="less 0",
        ),
        pytest.param(
            "g (bool[n] x) => (bool[n] y) <bool o = {0}> { a = Or(x, o)  y = Not(a) }",
            "g (bool[n] x) => (bool[n] y) { y = Not(x) }",
            "neutral-element",
            id="or no",
        ),
        pytest.param(
            "g (bool[n] x) => (bool[n] y) { a = And(x, x)  y = Not(a) }",
            "g (bool[n] x) => (bool[n] y) { y = Not(x) }",
            "same-condition",
            id="twice the same",
        ),
        pytest.param(
            "g (bool[n] x, bool[n] w) => (bool[n] y) { a = Not(x)  b = Not(a)  y = Xor(b, w) }",
            "g (bool[n] x, bool[n] w) => (bool[n] y) { y = Xor(x, w) }",
            "not-not",
            id="not not",
        ),
        pytest.param(
            f"""g (float[b,h,3,4] x, bool[b,1,1,4] keep) => (float[b,h,3,4] y)
            <{LOW}, bool[3,1] rows = {{1,1,1}}> {{
                a = And(rows, keep)  m = Where(a, z, l)  y = Add(x, m)
            }}""",
            f"""g (float[b,h,3,4] x, bool[b,1,1,4] keep) => (float[b,h,3,4] y) <{LOW}> {{
                y_widened_mask = Where(keep, z, l)  y = Add(x, y_widened_mask)
            }}""",
            "widened-mask",
            id="a mask for each row",
        ),
        pytest.param(
            f"""g (float[b,h,3,4] x, bool[b,1,1,4] keep) => (float[b,h,3,4] y)
            <{LOW}, int64[4] wide = {{1,1,3,1}}> {{
                e = Expand(keep, wide)  n = Not(e)  m = Where(n, l, z)  k = Neg(m)  y = Sub(x, k)
            }}""",
            f"""g (float[b,h,3,4] x, bool[b,1,1,4] keep) => (float[b,h,3,4] y) <{LOW}> {{
                y_widened_mask = Not(keep)
                y_widened_mask_1 = Where(y_widened_mask, l, z)
                y_widened_mask_2 = Neg(y_widened_mask_1)
                y = Sub(x, y_widened_mask_2)
            }}""",
            "widened-mask",
            id="a mask that is expanded and turned round",
        ),
        pytest.param(
            f"""g (int64[2,3] keep) => (int64[2,1,1,3] y) <{FLAT_WEIGHTS}> {{
                {FLAT} w = Mul(bs, columns)  k = Add(ss, w)
                flat = Reshape(keep, f)  y = Gather(flat, k)
            }}""",
            """g (int64[2,3] keep) => (int64[2,1,1,3] y) <int64[2] shape = {1,2}> {
                y = Unsqueeze(keep, shape)
            }""",
            "flat-grid",
            id="all positions in rows",
        ),
        pytest.param(
            f"""g (int64[2,3] keep) => (int64[2,3] y) <{FLAT_WEIGHTS}> {{
                {MATRIX} w = Mul(columns, bs)  k = Add(w, ss)
                flat = Reshape(keep, f)  m = Gather(flat, k)  y = Neg(m)
            }}""",
            "g (int64[2,3] keep) => (int64[2,3] y) { y = Neg(keep) }",
            "flat-grid",
            id="all positions of a matrix",
        ),
    ],
)
def test_fewer_nodes_say_the_same(parse, assert_graph, before, after, rule):
    model = parse(before)
    counts = dict(apply_rules(model, "masks", MASK_RULES).counts)
    assert counts == {rule: 1}
    assert_graph(model, after)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "g (float[n] x) => (float[n] y) <float z = {0}> { y = Add(x, z) }",
            id="a float plus 0, which makes -0 to 0",
        ),
        pytest.param(
            "g (float[n] x) => (float[n] y) <float z = {-0.0}> { y = Sub(x, z) }",
            id="a float less -0",
        ),
        pytest.param(
            "g (float[n] x) => (float[n] y) <float z = {0}> { y = Sub(z, x) }",
            id="0 less a float",
        ),
        pytest.param(
            "g (float[1] x) => (float[2] y) <float[2] z = {1,1}> { y = Mul(x, z) }",
            id="a 1 that repeats",
        ),
        pytest.param(
            "g (float[n] x) => (float[n] y) <float[2] z = {1,2}> { y = Mul(x, z) }",
            id="not only 1",
        ),
        pytest.param(
            "g (bool[n] x) => (bool[n] y) <bool z = {1}> { y = Or(x, z) }",
            id="or yes",
        ),
        pytest.param(
            "g (bool[n] x, bool[n] z) => (bool[n] y) { y = And(x, z) }",
            id="two conditions",
        ),
        pytest.param(
            f"""g (float[b,h,3,4] x, bool[b,1,1,4] keep, bool[3,1] rows) => (float[b,h,3,4] y)
            <{LOW}> {{ a = And(rows, keep)  m = Where(a, z, l)  y = Add(x, m) }}""",
            id="rows that may be masked",
        ),
        pytest.param(
            f"""g (float[b,h,3,4] x, bool[b,1,1,4] keep, float[b,1,1,4] w) => (float[b,h,3,4] y)
            <{LOW}, bool[3,1] rows = {{1,1,1}}> {{
                a = And(rows, keep)  m = Where(a, z, w)  y = Add(x, m)
            }}""",
            id="a mask of two inputs",
        ),
        pytest.param(
            f"""g (float[b,h,3,4] x, bool[b,1,1,4] keep) => (float[b,h,3,4] y)
            <{LOW}, bool[3,1] rows = {{1,1,1}}> {{
                a = And(rows, keep)  w = Where(a, z, l)  m = test.Neg(w)  y = Add(x, m)
            }}""",
            id="an operator of another domain",
        ),
        pytest.param(
            f"""g (float[b,h,3,4] x, bool[b,1,1,4] keep) => (float[b,h,3,4] y)
            <{LOW}, bool[3,1] rows = {{1,1,1}}> {{
                a = And(rows, keep)  w = Where(a, z, l)  m = Softmax(w)  y = Add(x, m)
            }}""",
            id="a function of a whole row",
        ),
        pytest.param(
            "g (float[n] x, float[n] w) => (float[n] y) { z = test.Unknown(w)  y = CastLike(x, z) }",
            id="a type that is not known",
        ),
        pytest.param(
            f"""g (float[1,1,1,4] x, bool[1,1,1,4] keep) => (float[1,1,3,4] y)
            <{LOW}, bool[3,1] rows = {{1,1,1}}> {{
                a = And(rows, keep)  m = Where(a, z, l)  y = Add(x, m)
            }}""",
            id="a mask that repeats the scores",
        ),
    ],
)
def test_what_says_something_else_stays(parse, assert_graph, text):
    model = parse(text)
    assert not apply_rules(model, "masks", MASK_RULES).changed
    assert_graph(model, text)


def test_an_unknown_rank_hides_what_a_mask_may_repeat(parse):
    model = parse(f"""g (float[b,h,3,4] x, bool[b,1,1,4] keep) => (float[b,h,3,4] y)
        <{LOW}, bool[3,1] rows = {{1,1,1}}> {{
            a = And(rows, keep)  m = Where(a, z, l)  y = Add(x, m)
        }}""")
    model.graph.inputs[0].shape = None
    assert not apply_rules(model, "masks", MASK_RULES).changed


def test_a_single_number_leaves_any_rank_alone(parse):
    model = parse("g (float[n] x) => (float[n] y) <float o = {1}> { a = Mul(x, o)  y = Neg(a) }")
    model.graph.inputs[0].shape = None
    assert apply_rules(model, "masks", MASK_RULES).counts == (("neutral-element", 1),)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("s = Range(o, c, i)", "s = Range(o, r, i)"), "not known to be all there are"),
        (
            (
                "bs = Unsqueeze(b, u)  ss = Unsqueeze(s, t)",
                "bs = Unsqueeze(b, t)  ss = Unsqueeze(s, u)",
            ),
            "rows run along axis 3 and columns along axis 0",
        ),
        (
            ("ss = Unsqueeze(s, t)", "sn = Unsqueeze(s, t)  ss = Expand(sn, e)"),
            "the indices repeat positions",
        ),
    ],
)
def test_other_grids_are_near_misses(parse, change, reason):
    body = FLAT.replace(*change)
    model = parse(f"""g (int64[2,3] keep) => (int64[p,q,r,s] y) <{FLAT_WEIGHTS}> {{
        {body} w = Mul(bs, columns)  k = Add(ss, w)
        flat = Reshape(keep, f)  y = Gather(flat, k)
    }}""")
    stats = apply_rules(model, "masks", MASK_RULES)
    assert not stats.changed
    assert [refusal.rule for refusal in stats.refused] == ["flat-grid"]
    assert reason in stats.refused[0].reason


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Reshape(keep, f)", "Identity(column)"),
        ("k = Add(ss, w)", "k = Sub(ss, w)"),
        ("w = Mul(bs, columns)", "w = Add(bs, columns)"),
        ("w = Mul(bs, columns)", "w = Mul(bs, rows)"),
        ("b = Range(o, r, i)", "b = Range(i, r, i)"),
        ("Gather(flat, k)", "Gather<axis = -1>(flat, k)"),
    ],
)
def test_gathers_of_something_else_stay(parse, old, new):
    body = f"{FLAT} w = Mul(bs, columns)  k = Add(ss, w)  flat = Reshape(keep, f)"
    body += "  y = Gather(flat, k)"
    assert old in body
    model = parse(
        f"g (int64[2,3] keep, int64[6] column) => (int64[p,q,r,s] y) <{FLAT_WEIGHTS}>"
        f" {{ {body.replace(old, new)} }}"
    )
    stats = apply_rules(model, "masks", MASK_RULES)
    assert not stats.changed
    assert not stats.refused


@st.composite
def masked(draw):
    """Scores plus a mask in some of the ways that exporters write it."""
    pattern = Pattern()
    random = np.random.default_rng(draw(st.integers(0, 99)))
    rows, keys = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    shape = draw(st.sampled_from([(2, 2, rows, keys), (1, 1, 1, keys)]))
    scores = pattern.input(random.standard_normal(shape).astype(np.float32))
    value = pattern.input(random.random((2, 1, 1, keys)) > 0.3)
    for kind in draw(st.lists(st.sampled_from(["and", "not", "same", "or"]), max_size=3)):
        if kind == "and":
            certain = np.ones((rows, 1), bool)
            certain[0, 0] = draw(st.integers(0, 3)) > 0
            value = pattern.add("And", pattern.weight(certain), value)
        elif kind == "not":
            value = pattern.add("Not", pattern.add("Not", value))
        elif kind == "same":
            value = pattern.add(draw(st.sampled_from(["And", "Or"])), value, value)
        else:
            value = pattern.add("Or", value, pattern.weight(np.array(draw(st.booleans()))))
    numbers = [
        pattern.weight(np.full((1,) * draw(st.integers(0, 4)), each, np.float32))
        for each in (draw(st.sampled_from([0, 1])), -1e9)
    ]
    value = pattern.add("Where", value, *numbers)
    for kind in draw(st.lists(st.sampled_from(["Add", "Sub", "Mul", "Div"]), max_size=2)):
        number = np.float32(draw(st.sampled_from([0.0, -0.0, 1.0, 2.0])))
        value = pattern.add(kind, value, pattern.weight(number if kind != "Div" else number + 1))
    if draw(st.booleans()):
        size = pattern.weight(np.array([2, 1, rows, keys], np.int64))
        value = pattern.add("Expand", value, size)
    pattern.add("Add", scores, value)
    return pattern


@settings(max_examples=40, deadline=None)
@given(st.data(), masked())
def test_every_bit_stays(data, pattern):
    check_kept(surround(data.draw, pattern), lambda model: SHAPES.run(model), exact=True)
