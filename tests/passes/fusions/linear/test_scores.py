"""The scale of scores: where it moves to an operand, where not, and that the outputs stay."""

from __future__ import annotations

import pytest
from linear_graphs import operators, reasons, rewritten

from leptonc.passes.fusions.linear.scores import RULES


def graph(body: str, a: str = "2,4,1", b: str = "2,1,4", kind: str = "float") -> str:
    return f"g ({kind}[{a}] a, {kind}[{b}] b) => ({kind}[i,j,k] y) <{kind} s = {{4}}> {{ {body} }}"


@pytest.mark.parametrize(
    ("body", "a", "b", "scaled"),
    [
        ("p = MatMul(a, b)  y = Mul(p, s)", "2,4,1", "2,1,4", "a"),
        ("p = MatMul(a, b)  y = Mul(s, p)", "2,4,1", "1,1,3", "b"),
        ("p = MatMul(a, b)  y = Div(p, s)", "1,2,1", "2,1,4", "a"),
    ],
)
@pytest.mark.parametrize("kind", ["float", "float16", "double"])
def test_the_smallest_operand_is_scaled(body, a, b, scaled, kind):
    model, stats = rewritten(graph(body, a, b, kind), RULES)
    assert stats.counts == (("scores-scale", 1),)
    assert operators(model) == [body.split("y = ")[1][:3], "MatMul"]
    assert next(iter(model.graph)).inputs[0].name == scaled


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            graph("p = MatMul(a, b)  y = Mul(p, s)", "n,4,1", "n,1,4"),
            "no operand is known to be smaller than the product",
        ),
        (
            graph("p = MatMul(a, b)  y = Mul(p, s)", "2,4,8", "2,8,4"),
            "no operand is known to be smaller than the product",
        ),
        (
            graph("p = MatMul(a, b)  q = Mul(p, s)  [other] r = Neg(p)  y = Add(q, r)"),
            "'p' is also read by 'other' (Neg)",
        ),
        (
            graph("p = MatMul(a, b)  y = Mul(p, s)").replace("{4}", "{0}"),
            "the factor 0.0 is 0, not finite, or of an extreme size",
        ),
        (
            graph("p = MatMul(a, b)  y = Mul(p, s)", kind="int32"),
            "'p' is no tensor of floating-point numbers",
        ),
    ],
)
def test_a_scale_that_may_not_move_is_refused(text, reason):
    _, stats = rewritten(text, RULES)
    assert not stats.changed
    assert reasons(stats, "scores-scale") == [reason]


@pytest.mark.parametrize("target", ["primitive", "ort-cpu", "ort-cuda"])
def test_other_targets_keep_it(target):
    text = graph("p = MatMul(a, b)  y = Mul(p, s)")
    assert not rewritten(text, RULES, target=target)[1].changed


@pytest.mark.parametrize(
    "body", ["p = MatMul(a, b)  y = Div(s, p)", "p = MatMul(a, b)  y = Mul(p, p)"]
)
def test_other_forms_are_left_alone(body):
    _, stats = rewritten(graph(body), RULES)
    assert not stats.changed
    assert not stats.refused
