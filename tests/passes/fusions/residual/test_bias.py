"""A bias and the activation of the sum become one node."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, alone, check_kept, surround, times_each_fires

from leptonc.passes.fusions.residual.bias import RULES
from leptonc.passes.fusions.residual.fuse import FUSE_RESIDUAL
from leptonc.passes.pipeline import Context
from leptonc.passes.rewriting.rewriter import apply_rules

HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>\n'


def graph(body, *, x="float[N,3]", bias="float[3] b = {1, 2, 3}", more=""):
    return f"{HEAD} g ({x} x) => ({x} y{more}) <{bias}> {{ {body} }}"


ERF = "a = Add(x, b)  y = Gelu(a)"
TANH = 'a = Add(b, x)  y = Gelu<approximate: string = "tanh">(a)'


@pytest.mark.parametrize(
    ("body", "target", "expected"),
    [
        (ERF, "ort-cuda", "y = com.microsoft.BiasGelu(x, b)"),
        (ERF.replace("Gelu", "com.microsoft.Gelu"), "ort-cuda", "y = com.microsoft.BiasGelu(x, b)"),
        (TANH, "ort-cuda", "y = com.microsoft.FastGelu(x, b)"),
        (TANH, "ort-cpu", "y = com.microsoft.FastGelu(x, b)"),
        (
            "a = Add(b, x)  y = com.microsoft.FastGelu(a)",
            "ort-cpu",
            "y = com.microsoft.FastGelu(x, b)",
        ),
        (ERF, "ort-cpu", ERF),
        (ERF, "generic", ERF),
        (TANH, "primitive", TANH),
    ],
)
def test_each_form(parse, assert_graph, body, target, expected):
    model = parse(graph(body))
    stats = FUSE_RESIDUAL.run(model, Context(target))
    assert stats.changed == (body != expected)
    assert_graph(model, graph(expected))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (graph(ERF, more=", float[N,3] a"), "'a' is an output of the graph"),
        (graph(ERF, x="float[N,M]"), "'b' is not known to be one number for each column"),
        (
            graph(ERF, bias="float[1] b = {1}"),
            "'b' is not known to be one number for each column",
        ),
        (graph(ERF, x="float[3]"), "'x' is a vector itself"),
        (
            graph(ERF, x="double[N,3]", bias="double[3] b = {1, 2, 3}"),
            "'x' is DOUBLE",
        ),
    ],
)
def test_a_precondition_that_does_not_hold(parse, text, reason):
    stats = FUSE_RESIDUAL.run(parse(text), Context("ort-cuda"))
    assert not stats.changed
    assert [refusal.reason for refusal in stats.refused] == [reason]


@pytest.mark.parametrize(
    ("unknown", "bias"), [("x", "float[3] b = {1, 2, 3}"), ("b", "float[1] z = {1}")]
)
def test_unknown_shapes_are_refused(parse, unknown, bias):
    text = graph(ERF, bias=bias)
    if unknown == "b":
        text = text.replace("float[N,3] x)", "float[N,3] x, float[M] b)")
    model = parse(text)
    if unknown == "x":
        model.graph.inputs[0].shape = None
    stats = FUSE_RESIDUAL.run(model, Context("ort-cuda"))
    assert [refusal.reason for refusal in stats.refused] == [
        "'b' is not known to be one number for each column"
    ]


@pytest.mark.parametrize(
    "text",
    [
        graph(ERF, bias="float[1,3] b = {1, 2, 3}"),
        graph(ERF, bias="float b = {1}"),
        graph("a = Add(b, x)  y = com.microsoft.FastGelu(a, b)"),
        graph("a = Sub(x, b)  y = Gelu(a)"),
    ],
)
def test_other_forms_are_left_alone(parse, text):
    stats = FUSE_RESIDUAL.run(parse(text), Context("ort-cuda"))
    assert not stats.changed
    assert not stats.refused


def draw_biased(draw):
    pattern, random = Pattern(), np.random.default_rng(draw(st.integers(0, 99)))
    shape = tuple(draw(st.integers(1, 3)) for _ in range(draw(st.integers(2, 3))))
    x = pattern.input(random.normal(size=shape).astype(np.float32))
    bias = pattern.weight(random.normal(size=shape[-1:]).astype(np.float32))
    total = pattern.add("Add", *draw(st.permutations([x, bias])))
    pattern.add("Gelu", total, approximate=draw(st.sampled_from(["none", "tanh"])))
    return pattern


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_outputs_stay_in_any_surrounding(data):
    def rewrite(model):
        apply_rules(model, "bias", RULES, target="ort-cuda")
        assert not apply_rules(model, "bias", RULES, target="ort-cuda").changed

    check_kept(surround(data.draw, draw_biased(data.draw)), rewrite)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_it_fires_where_nothing_is_in_the_way(data):
    model = alone(draw_biased(data.draw))
    assert apply_rules(model, "bias", RULES, target="ort-cuda").changed == 1


def test_each_rule_fires_on_what_is_drawn():
    fired = times_each_fires(draw_biased, RULES, target="ort-cuda")
    assert min(fired[name] for name in ("bias-gelu", "bias-fast-gelu")) >= 5
