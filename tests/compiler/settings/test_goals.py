"""Accuracy goals: what is read, what is refused, and which way is better."""

from __future__ import annotations

import pytest

from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.goals import ErrorGoal, MetricGoal, parse_goals


@pytest.mark.parametrize(
    ("text", "measure", "bound"),
    [
        ("sqnr=30", "sqnr", 30.0),
        ("sqnr=30.5dB", "sqnr", 30.5),
        (" sqnr=2e1 ", "sqnr", 20.0),
        ("cosine=0.999", "cosine", 0.999),
        ("cosine=.5", "cosine", 0.5),
    ],
)
def test_bounds_on_the_difference_are_read(text, measure, bound):
    assert ErrorGoal.parse(text) == ErrorGoal(measure, bound)


@pytest.mark.parametrize(
    "text",
    [
        *("", "sqnr", "sqnr=", "sqnr=-3", "sqnr=0", "sqnr=x", "sqnr=nan", "sqnr=inf", "30"),
        *("psnr=30", "sqnr=30%", "sqnr==30", "cosine=1.5", "cosine=0", "sqnr=1e999"),
    ],
)
def test_other_bounds_are_refused_with_what_to_write(text):
    with pytest.raises(UsageError) as caught:
        ErrorGoal.parse(text)
    assert caught.value.exit_code == 2
    assert caught.value.fix


@pytest.mark.parametrize(
    ("metric", "drop", "expected"),
    [
        ("accuracy", "0.5%", MetricGoal("accuracy", "max", 0.005, True)),
        ("accuracy", "0.3", MetricGoal("accuracy", "max", 0.3, False)),
        ("accuracy:max", "0", MetricGoal("accuracy", "max", 0.0, False)),
        ("bits_per_byte:min", "0.5 %", MetricGoal("bits_per_byte", "min", 0.005, True)),
    ],
)
def test_bounds_on_a_figure_are_read(metric, drop, expected):
    assert MetricGoal.parse(metric, drop) == expected


@pytest.mark.parametrize(
    ("metric", "drop"),
    [
        *(("accuracy", drop) for drop in ("", "-1%", "x", "0.5 percent", "1e999", "%")),
        *((metric, "1%") for metric in ("", ":min", "accuracy:best", "a b", "accuracy:")),
    ],
)
def test_other_figures_and_drops_are_refused(metric, drop):
    with pytest.raises(UsageError):
        MetricGoal.parse(metric, drop)


@pytest.mark.parametrize(
    ("goal", "baseline", "kept", "missed"),
    [
        (MetricGoal.parse("accuracy", "1%"), 0.8, 0.793, 0.791),
        (MetricGoal.parse("accuracy", "0.01"), 0.8, 0.7901, 0.789),
        (MetricGoal.parse("bits:min", "1%"), 2.0, 2.019, 2.021),
        (MetricGoal.parse("bits:min", "0.1"), 2.0, 2.09, 2.11),
        (MetricGoal.parse("score", "10%"), -2.0, -2.1, -2.3),
        (MetricGoal.parse("accuracy", "0"), 0.8, 0.8, 0.7999),
    ],
)
def test_a_drop_is_counted_in_the_direction_that_is_worse(goal, baseline, kept, missed):
    assert goal.room(kept, baseline) >= 0
    assert goal.room(missed, baseline) < 0


@pytest.mark.parametrize("better", ["max", "min"])
def test_a_figure_that_improves_has_not_dropped(better):
    goal = MetricGoal("figure", better, 0.0, relative=False)
    assert goal.room(2.0 if better == "max" else 0.5, 1.0) > 0


def test_a_figure_that_is_not_returned_is_named_with_those_that_are():
    with pytest.raises(UsageError, match="'f1'") as caught:
        MetricGoal.parse("f1", "1%").value({"accuracy": 0.9, "loss": 0.1})
    assert "accuracy, loss" in str(caught.value.fix)


def test_a_figure_that_is_no_number_is_refused():
    with pytest.raises(UsageError, match="nan"):
        MetricGoal.parse("f1", "1%").value({"f1": float("nan")})


@pytest.mark.parametrize(("evaluate", "drop"), [("accuracy", None), (None, "1%")])
def test_evaluate_and_max_drop_belong_together(evaluate, drop):
    with pytest.raises(UsageError, match="without"):
        parse_goals(None, evaluate, drop)


def test_goals_can_be_combined_or_absent():
    assert parse_goals(None, None, None) == ()
    both = parse_goals("sqnr=30", "accuracy", "0.5%")
    assert [goal.text for goal in both] == ["sqnr=30", "evaluate accuracy, drop 0.5%"]
