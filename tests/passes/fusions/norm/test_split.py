"""Layer normalisation whose scale is taken into the deviation first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, alone, check_kept, surround

from leptonc.passes.fusions.norm.fuse import FUSE_NORMALIZATION
from leptonc.passes.rewriting.rewriter import apply_rules

HEAD = '<ir_version: 10, opset_import: ["" : 18]>\n'
WEIGHTS = """int64[1] last = {-1}, float e = {0.01},
    float[3] k = {1, 2, 3}, float[3] b = {4, 5, 6}"""
BODY = """m = ReduceMean(x, last)
    c = Sub(x, m)
    square = Mul(c, c)
    v = ReduceMean(square, last)
    w = Add(v, e)
    q = Sqrt(w)
    i = Reciprocal(q)
    r = Mul(i, k)
    product = Mul(x, r)
    shift = Mul(m, r)
    rest = Sub(b, shift)
    y = Add(product, rest)"""


def graph(body=BODY, weights=WEIGHTS, *, x="float[2,3]", more=""):
    return f"{HEAD} g ({x} x) => ({x} y{more}) <{weights}> {{ {body} }}"


EXPECTED = f"""{HEAD} g (float[2,3] x) => (float[2,3] y)
    <float[3] k = {{1, 2, 3}}, float[3] b = {{4, 5, 6}}> {{ y = LayerNormalization
    <axis: int = -1, epsilon: float = 0.01, stash_type: int = 1>(x, k, b) }}"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Mul(i, k)", "Mul(k, i)"),
        ("Add(product, rest)", "Add(rest, product)"),
        ("Mul(m, r)", "Mul(r, m)"),
        ("Mul(x, r)", "Mul(r, x)"),
    ],
)
def test_every_order(parse, assert_graph, old, new):
    model = parse(graph(BODY.replace(old, new)))
    FUSE_NORMALIZATION.run(model)
    assert_graph(model, EXPECTED)


def test_without_a_scale(parse):
    body = BODY.replace("r = Mul(i, k)", "").replace("r)", "i)")
    model = parse(graph(body))
    stats = FUSE_NORMALIZATION.run(model)
    assert stats.counts == (("layer-norm-split", 1), ("norm-bias", 1))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (graph(more=", float[2,3] c"), "'c' is an output of the graph"),
        (
            graph(weights=WEIGHTS.replace("float[3] b = {4, 5, 6}", "float[2,1] b = {4, 5}")),
            "scale and bias are not known to be of the shape of the last axes",
        ),
        (
            graph(x="float[2,N]"),
            "scale and bias are not known to be of the shape of the last axes",
        ),
    ],
)
def test_a_precondition_that_does_not_hold(parse, text, reason):
    stats = FUSE_NORMALIZATION.run(parse(text))
    assert [r.reason for r in stats.refused if r.rule == "layer-norm-split"] == [reason]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Mul(m, r)", "Mul(m, i)"),
        ("Sub(b, shift)", "Sub(shift, b)"),
        ("Mul(x, r)", "Mul(c, r)"),
        ("Mul(m, r)", "Mul(v, r)"),
        ("Mul(m, r)", "Mul(q, r)"),
        ("shift = Mul(m, r)", "shift = Neg(m)"),
        ("shift = Mul(m, r)", "n = ReduceMean(x, first)  shift = Mul(n, r)"),
        ("product = Mul(x, r)", "product = Neg(x)"),
        ("rest = Sub(b, shift)", "rest = Neg(shift)"),
        ("square = Mul(c, c)", "square = Mul(x, x)"),
        (
            "square = Mul(c, c)",
            "n = ReduceMean(z, last)  d = Sub(z, n)  square = Mul(d, d)",
        ),
    ],
)
def test_what_only_looks_like_it(parse, old, new):
    assert old in BODY
    text = graph(BODY.replace(old, new), WEIGHTS + ", int64[1] first = {0}")
    stats = FUSE_NORMALIZATION.run(parse(text.replace("x) =>", "x, float[2,3] z) =>")))
    assert "layer-norm-split" not in dict(stats.counts)
    assert "layer-norm-split" not in {refusal.rule for refusal in stats.refused}


def draw_split(draw):
    pattern, random = Pattern(), np.random.default_rng(draw(st.integers(0, 99)))
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(2, 4)) for _ in range(rank))
    x = pattern.input(random.normal(size=shape).astype(np.float32))
    axes = pattern.weight(np.array([-1], np.int64))
    mean = pattern.add("ReduceMean", x, axes)
    centre = pattern.add("Sub", x, mean)
    variance = pattern.add("ReduceMean", pattern.add("Mul", centre, centre), axes)
    total = pattern.add("Add", variance, pattern.weight(np.float32(0.01)))
    root = pattern.add("Reciprocal", pattern.add("Sqrt", total))
    dims = draw(st.sampled_from([shape[-1:], (1,), ()]))
    if draw(st.booleans()):
        scale = pattern.weight(random.normal(size=dims).astype(np.float32))
        root = pattern.add("Mul", *draw(st.permutations([root, scale])))
    bias = pattern.weight(random.normal(size=dims).astype(np.float32))
    rest = pattern.add("Sub", bias, pattern.add("Mul", mean, root))
    pattern.add("Add", *draw(st.permutations([pattern.add("Mul", x, root), rest])))
    return pattern


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_outputs_stay_in_any_surrounding(data):
    def rewrite(model):
        apply_rules(model, "norm", FUSE_NORMALIZATION.rules)
        assert not apply_rules(model, "norm", FUSE_NORMALIZATION.rules).changed

    check_kept(surround(data.draw, draw_split(data.draw)), rewrite)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_it_fires_where_nothing_is_in_the_way(data):
    model = alone(draw_split(data.draw))
    apply_rules(model, "norm", FUSE_NORMALIZATION.rules)
    assert [node.op_type for node in model.graph] == ["LayerNormalization"]
