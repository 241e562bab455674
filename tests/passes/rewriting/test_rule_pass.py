from __future__ import annotations

from leptonc.passes.base import Firing, Refusal
from leptonc.passes.pipeline import Context, Demanding
from leptonc.passes.rewriting import RulePass
from leptonc.passes.rewriting.rule import Rule, read_match
from leptonc.passes.targets import ORT_CPU


def replacing(name, old, new, **options):
    """Return a rule that puts the operator `new` where `old` is."""
    return Rule(
        name,
        (old,),
        lambda site: site.node.inputs[0],
        None,
        lambda site, x, build: {site.node.outputs[0]: build.op(new, [x])},
        **options,
    )


# Removes an Abs that reads an Abs.
ABS_ABS = Rule(
    "abs-abs",
    ("Abs",),
    lambda site: None if site.producer(site.input(0), "Abs") is None else site.input(0),
    lambda site, x: site.read_elsewhere(x, (site.node,)),
    read_match,
)
TEXT = "g (float[2] x) => (float[2] y) { a = Relu(x)  b = Abs(a)  c = Neg(b)  y = Exp(c) }"


def operators(model):
    return [node.op_type for node in model.graph]


def test_the_second_rules_see_what_the_first_leave_and_may_call_them_again(parse):
    model = parse(TEXT)
    # Only the second list makes the Abs that the first can take away.
    step = RulePass("twice", None, (ABS_ABS,), then=(replacing("neg-abs", "Neg", "Abs"),))
    stats = step.run(model)
    assert operators(model) == ["Relu", "Abs", "Exp"]
    assert [firing.rule for firing in stats.fired] == ["neg-abs", "abs-abs"]
    assert stats.counts == (("abs-abs", 1), ("neg-abs", 1))
    assert (stats.nodes_before, stats.nodes_after) == (4, 3)
    assert not step.run(model).changed


def test_near_misses_are_those_that_stand_in_the_end(parse):
    model = parse(
        "g (float[2] x) => (float[2] y, float[2] b) "
        "{ a = Relu(x)  b = Abs(a)  c = Abs(b)  d = Neg(c)  y = Exp(d) }"
    )
    step = RulePass("twice", None, (ABS_ABS,), then=(replacing("neg-sin", "Neg", "Sin"),))
    stats = step.run(model)
    assert stats.refused == (Refusal("", "'b' is an output of the graph", "abs-abs"),)
    assert stats.fired == (Firing("neg-sin", ""),)


def test_a_rule_for_another_target_does_not_fire(parse):
    step = RulePass(
        "one", None, (replacing("neg-abs", "Neg", "Abs", targets=frozenset({ORT_CPU})),)
    )
    assert not step.run(parse(TEXT)).changed
    assert step.run(parse(TEXT), Context(ORT_CPU)).changed


def test_it_runs_on_every_model():
    assert not isinstance(RulePass("one", None, ()), Demanding)
