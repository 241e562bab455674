"""Goals of a quantisation: how much accuracy it may cost.

    --max-error sqnr=30              the lowest SQNR of any output against the source, in dB
    --max-error cosine=0.999         the lowest cosine of any output
    --evaluate accuracy --max-drop 0.5%      relative to what the unquantised model reaches
    --evaluate accuracy --max-drop 0.005     absolute, in the unit of the figure
    --evaluate bits_per_byte:min --max-drop 0.5%

A figure of `evaluate()` is better when it is higher, unless its name is followed by `:min`. The
drop is how much worse it becomes in that sense; a figure that improves has not dropped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from leptonc.compiler.errors import UsageError

ERRORS = ("sqnr", "cosine")
HIGHER, LOWER = "max", "min"
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?"
_ERROR = re.compile(rf"(?P<name>[a-z]+)=(?P<number>{_NUMBER})(?:\s*dB)?")
_DROP = re.compile(rf"(?P<number>{_NUMBER})(?P<percent>\s*%)?")
_METRIC = re.compile(r"(?P<name>[^:\s]+)(?::(?P<better>max|min))?")


@dataclass(frozen=True)
class ErrorGoal:
    """A bound on the difference from the source, over all outputs and samples.

    Attributes:
        measure: "sqnr" in dB, or "cosine".
        bound: The lowest value that keeps the goal.
    """

    measure: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> ErrorGoal:
        """Read `sqnr=30` or `cosine=0.999`.

        Raises:
            UsageError: Another name, no positive number, or a cosine above 1.
        """
        match = _ERROR.fullmatch(text.strip())
        if match is None or match["name"] not in ERRORS or not float(match["number"]) > 0:
            raise UsageError(
                f"the goal --max-error {text!r} is not understood",
                fix="write sqnr=DECIBELS or cosine=NUMBER, e.g. --max-error sqnr=30",
            )
        bound = float(match["number"])
        if not math.isfinite(bound) or (match["name"] == "cosine" and bound > 1):
            raise UsageError(
                f"no model can keep the goal --max-error {text!r}",
                fix="a cosine is at most 1, an SQNR is finite",
            )
        return cls(match["name"], bound)

    @property
    def text(self) -> str:
        """The goal as it is written on the command line."""
        return f"{self.measure}={self.bound:g}"

    def room(self, value: float) -> float:
        """Return how far `value` is on the good side of the bound; negative when it is not."""
        return value - self.bound


@dataclass(frozen=True)
class MetricGoal:
    """A bound on how much worse one figure of the recipe's `evaluate()` becomes.

    Attributes:
        metric: Its name in the mapping that `evaluate` returns.
        better: "max" when higher is better, "min" when lower is.
        drop: The largest loss, never negative.
        relative: Whether `drop` is a fraction of the figure of the unquantised model.
    """

    metric: str
    better: str
    drop: float
    relative: bool

    @classmethod
    def parse(cls, metric: str, drop: str) -> MetricGoal:
        """Read the values of `--evaluate` and `--max-drop`.

        Raises:
            UsageError: One of them is not understood.
        """
        named, lost = _METRIC.fullmatch(metric.strip()), _DROP.fullmatch(drop.strip())
        if named is None:
            raise UsageError(
                f"the figure --evaluate {metric!r} is not understood",
                fix="write the name of a figure that evaluate() returns; with :min behind it "
                "when lower is better, e.g. --evaluate bits_per_byte:min",
            )
        if lost is None or not math.isfinite(float(lost["number"])):
            raise UsageError(
                f"the drop --max-drop {drop!r} is not understood",
                fix="write a fraction of the unquantised figure, e.g. 0.5%, or an absolute "
                "loss, e.g. 0.003",
            )
        relative = lost["percent"] is not None
        number = float(lost["number"]) / (100 if relative else 1)
        return cls(named["name"], named["better"] or HIGHER, number, relative)

    @property
    def text(self) -> str:
        """The goal as it is written on the command line."""
        figure = self.metric if self.better == HIGHER else f"{self.metric}:{LOWER}"
        drop = f"{self.drop * 100:g}%" if self.relative else f"{self.drop:g}"
        return f"evaluate {figure}, drop {drop}"

    def value(self, figures: Mapping[str, float]) -> float:
        """Return the figure of this goal.

        Raises:
            UsageError: `figures` does not have it, or it is no finite number.
        """
        if self.metric not in figures:
            raise UsageError(
                f"evaluate() does not return {self.metric!r}",
                fix=f"name one of those that it returns: {', '.join(sorted(figures)) or 'none'}",
            )
        found = float(figures[self.metric])
        if not math.isfinite(found):
            raise UsageError(
                f"evaluate() returns {found} for {self.metric!r}",
                fix="return finite numbers, or name another figure",
            )
        return found

    def bound(self, baseline: float) -> float:
        """Return the worst figure that keeps the goal, given that of the unquantised model."""
        loss = self.drop * abs(baseline) if self.relative else self.drop
        return baseline - loss if self.better == HIGHER else baseline + loss

    def room(self, value: float, baseline: float) -> float:
        """Return how far `value` is on the good side of the bound; negative when it is not."""
        bound = self.bound(baseline)
        return value - bound if self.better == HIGHER else bound - value


Goal = ErrorGoal | MetricGoal


def parse_goals(
    max_error: str | None, evaluate: str | None, max_drop: str | None
) -> tuple[Goal, ...]:
    """Read the goals of a command line; an empty tuple when there are none.

    Raises:
        UsageError: A goal is malformed, or one of `--evaluate` and `--max-drop` lacks the other.
    """
    if (evaluate is None) != (max_drop is None):
        given, lacking = ("--evaluate", "--max-drop") if evaluate else ("--max-drop", "--evaluate")
        raise UsageError(
            f"{given} without {lacking}",
            fix="give both, e.g. --evaluate accuracy --max-drop 0.5%",
        )
    goals: list[Goal] = []
    if max_error is not None:
        goals.append(ErrorGoal.parse(max_error))
    if evaluate is not None and max_drop is not None:
        goals.append(MetricGoal.parse(evaluate, max_drop))
    return tuple(goals)
