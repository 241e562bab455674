"""What goals are measured by: differences from the source, and the figures of an evaluation.

Differences are taken over the calibration samples together and over each trial of the
verification: the trials are inputs that calibration did not see, at other sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leptonc.compiler.accuracy.search import Evaluation
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.goals import ErrorGoal, Goal, MetricGoal
from leptonc.compiler.sources.source import Source
from leptonc.compiler.verification.trials import Trial
from leptonc.runtime.arrays import Arrays

Predict = Callable[[Mapping[str, np.ndarray]], Arrays]
Samples = Callable[[], Iterator[Mapping[str, np.ndarray]]]
# Of the calibration samples that are compared with the source, in bytes of their outputs.
KEPT_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Yardstick:
    """Measures candidates by the goals; the right answers are computed once.

    Attributes:
        goals: What to measure.
        source: The model, with its evaluation.
        trials: Inputs and right outputs of the verification.
        answered: Calibration samples with their right outputs.
        baseline: The figures that the source itself reaches.
    """

    goals: tuple[Goal, ...]
    source: Source
    trials: tuple[Trial, ...]
    answered: tuple[tuple[Mapping[str, np.ndarray], Arrays], ...]
    baseline: Mapping[str, float]

    @classmethod
    def of(
        cls, goals: Sequence[Goal], source: Source, trials: Sequence[Trial], samples: Samples
    ) -> Yardstick:
        """Compute the right answers.

        Raises:
            UsageError: A goal on a figure that the source does not have.
        """
        answered: list[tuple[Mapping[str, np.ndarray], Arrays]] = []
        size = 0
        if any(isinstance(goal, ErrorGoal) for goal in goals):
            for sample in samples():
                outputs = source.reference(sample)
                size += sum(array.nbytes for array in outputs.values())
                answered.append((sample, outputs))
                if size > KEPT_BYTES:
                    break
        baseline = _evaluated(goals, source, source.reference)
        return cls(tuple(goals), source, tuple(trials), tuple(answered), baseline)

    def measure(self, predict: Predict, floats: frozenset[str]) -> Evaluation:
        """Measure one candidate.

        Args:
            predict: Runs it.
            floats: The layers that it keeps in float.
        """
        figures: dict[str, float] = {}
        rooms: dict[str, float] = {}
        evaluated = _evaluated(self.goals, self.source, predict)
        differences: tuple[float, float] | None = None
        for goal in self.goals:
            if isinstance(goal, MetricGoal):
                value = goal.value(evaluated)
                room = goal.room(value, goal.value(self.baseline))
                unit = abs(goal.value(self.baseline)) or 1.0
            else:
                differences = differences or self._differences(predict)
                value = differences[0 if goal.measure == "sqnr" else 1]
                room, unit = goal.room(value), goal.bound
            figures[goal.text] = value
            # Rooms of several goals are compared with one another, so they have no unit.
            rooms[goal.text] = room / unit
        return Evaluation(floats, rooms, figures)

    def _differences(self, predict: Predict) -> tuple[float, float]:
        """Return the lowest SQNR in dB and the lowest cosine of any output."""
        together: dict[str, _Difference] = {}
        for inputs, right in self.answered:
            outputs = predict(inputs)
            for name, expected in right.items():
                if expected.dtype.kind == "f":
                    together.setdefault(name, _Difference()).add(expected, outputs[name])
        each = list(together.values())
        for trial in self.trials:
            outputs = predict(trial.inputs)
            for name, expected in trial.expected.items():
                if expected.dtype.kind == "f":
                    each.append(_Difference())
                    each[-1].add(expected, outputs[name])
        if not each:
            raise UsageError(
                "a bound on the difference needs an output of a float type",
                fix="use --evaluate and --max-drop",
            )
        return min(one.sqnr_db for one in each), min(one.cosine for one in each)


class _Difference:
    """Adds up what SQNR and cosine are made of."""

    def __init__(self) -> None:
        self._signal = self._noise = self._other = self._product = 0.0

    def add(self, expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any]) -> None:
        right, found = expected.astype(np.float64).ravel(), actual.astype(np.float64).ravel()
        # What is infinite by design (a mask) has no place in a sum; verification looks at it.
        finite = np.isfinite(right)
        right, found = right[finite], found[finite]
        self._signal += float(right @ right)
        self._other += float(found @ found)
        self._product += float(right @ found)
        self._noise += float(np.sum((right - found) ** 2))

    @property
    def sqnr_db(self) -> float:
        if self._noise == 0.0:
            return math.inf
        if not math.isfinite(self._noise) or self._signal == 0.0:
            return -math.inf
        return 10.0 * math.log10(self._signal / self._noise)

    @property
    def cosine(self) -> float:
        if self._noise == 0.0:
            return 1.0
        norms = math.sqrt(self._signal * self._other)
        return self._product / norms if norms > 0 and math.isfinite(norms) else 0.0


def _evaluated(goals: Sequence[Goal], source: Source, predict: Predict) -> dict[str, float]:
    """Return the figures of the source's evaluation, if a goal asks for one.

    Raises:
        UsageError: There is no evaluation, or it does not return the figure.
    """
    wanted = [goal for goal in goals if isinstance(goal, MetricGoal)]
    if not wanted:
        return {}
    if source.evaluate is None:
        raise UsageError(
            f"--evaluate {wanted[0].metric} needs an evaluation, and the source has none",
            where=source.name,
            fix="define evaluate(predict) in the recipe, or use --max-error sqnr=DECIBELS",
        )
    figures = source.evaluate(predict)
    for goal in wanted:
        goal.value(figures)
    return figures
