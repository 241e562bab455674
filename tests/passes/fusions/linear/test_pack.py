"""Layers of one input: which are packed, which are not, and that the outputs stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from linear_graphs import Draw, operators, reasons, rewritten, times_fired
from surroundings import Pattern

from leptonc.passes.fusions.linear.pack import RULES

WEIGHTS = (
    "float[2,1] q = {1,2}, float[2,2] k = {3,4,5,6}, float[2,1] v = {7,8},"
    " float[1] a = {1}, float[2] b = {2,3}, float[1] c = {4}"
)


def graph(body: str, outputs: str, x: str = "n,3,2") -> str:
    return f"g (float[{x}] x) => ({outputs}) <{WEIGHTS}> {{ {body} }}"


THREE = "float[n,3,1] f, float[n,3,2] g, float[n,3,1] h"


def test_queries_keys_and_values_become_one_layer_and_a_split(assert_graph):
    model, stats = rewritten(
        graph(
            "p = MatMul(x, q)  f = Add(p, a)  r = MatMul(x, k)  g = Add(b, r)"
            "  s = MatMul(x, v)  h = Add(s, c)",
            THREE,
        ),
        RULES,
    )
    assert stats.counts == (("packed-linear", 1),)
    assert_graph(
        model,
        f"g (float[n,3,2] x) => ({THREE}) <float[2,4] p_packed_linear_weight = {{1,3,4,7,2,5,6,8}},"
        " float[4] p_packed_linear_weight_1 = {1,2,3,4},"
        " int64[3] p_packed_linear_constant = {1,2,1}>"
        " { p_packed_linear = MatMul(x, p_packed_linear_weight)"
        " p_packed_linear_1 = Add(p_packed_linear, p_packed_linear_weight_1)"
        " f, g, h = Split<axis = -1>(p_packed_linear_1, p_packed_linear_constant) }",
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("f = MatMul(x, q)  g = MatMul(x, k)  h = MatMul(x, v)", ["MatMul", "Split"]),
        # Two biases of three: zeros for the third. One: it stays with its part.
        (
            "p = MatMul(x, q)  f = Add(p, a)  g = MatMul(x, k)  s = MatMul(x, v)  h = Add(s, c)",
            ["MatMul", "Add", "Split"],
        ),
        (
            "p = MatMul(x, q)  f = Add(p, a)  g = MatMul(x, k)  h = MatMul(x, v)",
            ["MatMul", "Split", "Add"],
        ),
        # The product before its bias is read as well: the bias stays an Add.
        (
            "p = MatMul(x, q)  t = Add(p, a)  f = Mul(t, p)  g = MatMul(x, k)  h = MatMul(x, v)",
            ["MatMul", "Split", "Add", "Mul"],
        ),
    ],
)
def test_biases_are_packed_where_that_is_cheaper(body, expected):
    model, _ = rewritten(graph(body, THREE), RULES)
    assert operators(model) == expected


@pytest.mark.parametrize("bias", [", b", ""])
def test_gemms_pack_too(bias):
    model, _ = rewritten(
        "g (float[n,2] x) => (float[n,1] f, float[n,2] g)"
        " <float[1,2] q = {1,2}, float[2,2] k = {3,4,5,6}, float[2] b = {2,3}>"
        f" {{ f = Gemm<transB = 1>(x, q)  g = Gemm<transB = 1>(x, k{bias}) }}",
        RULES,
    )
    assert operators(model) == ["Gemm", "Split"]
    assert len(next(iter(model.graph)).inputs) == (3 if bias else 2)


def test_the_packed_layer_comes_before_every_reader():
    model, stats = rewritten(
        graph("f = MatMul(x, q)  r = Relu(f)  z = MatMul(x, v)  h = Mul(r, z)", "float[n,3,1] h"),
        RULES,
    )
    assert stats.changed == 1
    assert operators(model) == ["MatMul", "Split", "Relu", "Mul"]


def test_a_layer_with_a_shared_weight_is_left_out():
    model, _ = rewritten(
        "g (float[n,2] x, float[n,2] o) => (float[n,1] f, float[n,2] g, float[n,1] h, float[n,1] i)"
        f" <{WEIGHTS}> {{ f = MatMul(x, q)  g = MatMul(x, k)  h = MatMul(x, v)  i = MatMul(o, v) }}",
        RULES,
    )
    assert operators(model) == ["MatMul", "Split", "MatMul", "MatMul"]


def test_old_opsets_split_by_an_attribute():
    model, _ = rewritten(
        '<ir_version: 8, opset_import: ["" : 11]>\n'
        + graph("f = MatMul(x, q)  g = MatMul(x, k)", "float[n,3,1] f, float[n,3,2] g"),
        RULES,
    )
    assert operators(model) == ["MatMul", "Split"]


def _decoder(layers: int) -> str:
    """Keys and values of each layer, from one memory."""
    body, weights = [], []
    for number in range(layers):
        for name in ("k", "v"):
            weights.append(f"float[2,2] {name}{number} = {{1,2,3,{number}}}")
            body.append(f"{name}{number}o = MatMul(m, {name}{number})")
        weights.append(f"float[2,2] w{number} = {{1,0,0,{number + 1}}}")
        last = "x" if number == 0 else f"y{number - 1}"
        body.append(f"s{number} = Mul({last}, k{number}o)  t{number} = Add(s{number}, v{number}o)")
        body.append(f"y{number} = MatMul(t{number}, w{number})")
    return (
        f"g (float[3,2] x, float[3,2] m) => (float[3,2] y{layers - 1})"
        f" <{', '.join(weights)}> {{ {'  '.join(body)} }}"
    )


def test_of_many_layers_those_that_meet_are_packed():
    model, stats = rewritten(_decoder(3), RULES)
    assert stats.changed == 3
    assert operators(model) == ["MatMul", "Split", "Mul", "Add", "MatMul"] * 3


TWO = "f = MatMul(x, q)  g = MatMul(x, k)"


@pytest.mark.parametrize(
    ("x", "target", "fires"),
    [
        ("n,3,2", "generic", True),
        ("n,3,2", "ort-cuda", True),
        ("n,3,2", "ort-cpu", False),
        ("1,16,2", "ort-cpu", True),
        ("1,17,2", "ort-cpu", False),
        ("n,3,2", "primitive", False),
    ],
)
def test_packing_is_for_targets_that_gain(x, target, fires):
    rows = x[:-2]
    text = graph(TWO, f"float[{rows},1] f, float[{rows},2] g", x)
    _, stats = rewritten(text, RULES, target=target)
    assert stats.changed == fires
    said = (
        []
        if fires or target == "primitive"
        else ["the copies of Split cost more than one product saves, unless rows are few"]
    )
    assert reasons(stats, "packed-linear") == said


def test_a_weight_that_would_be_stored_twice_is_refused():
    _, stats = rewritten(
        "g (float[n,2] x, float[n,2] o) => (float[n,1] f, float[n,2] g, float[n,1] i)"
        f" <{WEIGHTS}> {{ f = MatMul(x, q)  g = MatMul(x, k)  [other] i = MatMul(o, q) }}",
        RULES,
    )
    assert not stats.changed
    assert reasons(stats, "packed-linear") == [
        "the weight would be stored twice: 'q' is also read by 'other' (MatMul)"
    ]


@pytest.mark.parametrize(
    "text",
    [
        # Other inputs, a weight that is an input too, packed already, other kinds.
        "g (float[2,2] x, float[2,2] o) => (float[2,1] f, float[2,1] g)"
        f" <{WEIGHTS}> {{ f = MatMul(x, q)  g = MatMul(o, v) }}",
        "g (float[2,2] x, float[2,1] v) => (float[2,1] f, float[2,1] g)"
        f" <{WEIGHTS}> {{ f = MatMul(x, q)  g = MatMul(x, v) }}",
        "g (float[2,2] x) => (float[2,1] f, float[2,1] g, float[2,1] h)"
        f" <{WEIGHTS}> {{ f = MatMul(x, q)  p = MatMul(x, k)"
        "  g, h = Split<axis = -1, num_outputs = 2>(p) }",
        "g (float[2,2] x) => (float[2,1] f, float[2,2] g)"
        f" <{WEIGHTS}> {{ f = MatMul(x, q)  g = Gemm(x, k) }}",
        "g (float[2,2] x) => (float[2,1] f, float[2,2] g)"
        f" <{WEIGHTS}> {{ f = Gemm(x, q)  g = Gemm<transB = 1>(x, k) }}",
        "g (float[2,2] x) => (float[2,1] f, float[2,2] g)"
        f" <{WEIGHTS}> {{ f = Gemm<alpha = 2.0>(x, q)  g = Gemm(x, k) }}",
    ],
)
def test_other_forms_are_left_alone(text):
    _, stats = rewritten(text, RULES)
    assert not stats.changed
    assert not stats.refused


def _drawn(draw: Draw) -> Pattern:
    random = np.random.default_rng(draw(st.integers(0, 99)))
    flat = draw(st.booleans())
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    pattern = Pattern()
    k = draw(st.integers(1, 3))
    x = pattern.input(random.normal(size=(3, k) if flat else (2, 3, k)).astype(dtype))
    results = []
    for _ in range(draw(st.integers(2, 6))):
        n = draw(st.integers(1, 3))
        weight = pattern.weight(random.normal(size=(k, n)).astype(dtype))
        bias = pattern.weight(
            random.normal(size=draw(st.sampled_from([(n,), (1,), ()]))).astype(dtype)
        )
        if flat and draw(st.booleans()):
            results.append(pattern.add("Gemm", x, weight, bias))
            continue
        value = pattern.add("MatMul", x, weight)
        results.append(pattern.add("Add", value, bias) if draw(st.booleans()) else value)
    pattern.outputs = [pattern.add("Relu", value) for value in results[::-1]]
    return pattern


def test_outputs_stay_in_any_surrounding():
    assert times_fired(_drawn, RULES) >= 10
