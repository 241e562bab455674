"""Finds the fastest mix of quantised and float layers that keeps the goals.

Each layer has a cost and a benefit, measured once: the noise that rounding it adds, and the time
that it saves. Layers are ranked by noise for each unit of time saved. The search keeps the first
`k` of that ranking in float, and finds the smallest `k` that keeps the goals by bisection; a layer
that saves nothing comes first. Then the layers kept in float are tried in integers again, those
that save most first: in halves, so that one evaluation often settles several. Every evaluation
runs a whole candidate; with `MOST_EVALUATIONS` of them the search stops with the best it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MOST_EVALUATIONS = 20


@dataclass(frozen=True)
class LayerCost:
    """What quantising one layer costs and brings.

    Attributes:
        layer: Its name.
        noise: Noise for each unit of signal at its output.
        saved: Seconds of one call; negative when its quantised form is slower.
    """

    layer: str
    noise: float
    saved: float

    @property
    def rank(self) -> tuple[bool, float, str]:
        """Sorts layers: those to keep in float first come first."""
        useful = self.saved > 0
        return useful, -(self.noise / self.saved) if useful else -self.noise, self.layer


@dataclass(frozen=True)
class Evaluation:
    """One candidate and how far it is on the good side of each goal.

    Attributes:
        floats: The layers that it keeps in float.
        rooms: By goal; negative where the goal is missed.
        figures: What was measured, by goal.
    """

    floats: frozenset[str]
    rooms: Mapping[str, float]
    figures: Mapping[str, float]

    @property
    def keeps(self) -> bool:
        """Whether every goal is kept."""
        return all(room >= 0 for room in self.rooms.values())


Evaluate = Callable[[frozenset[str]], Evaluation]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The fastest candidate that keeps the goals, or the one that comes nearest.
        ranking: The layers, those to keep in float first.
        evaluations: In the order they were made.
    """

    best: Evaluation
    ranking: tuple[LayerCost, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def reached(self) -> bool:
        """Whether the best candidate keeps the goals."""
        return self.best.keeps


def search(
    costs: Sequence[LayerCost], evaluate: Evaluate, *, most: int = MOST_EVALUATIONS
) -> SearchResult:
    """Find the fastest candidate that keeps the goals with at most `most` evaluations.

    A candidate always has a quantised layer: one that is float throughout is not what was asked
    for, and does not count as reaching a goal.

    Args:
        costs: Of every layer that can be quantised; at least one.
        evaluate: Builds and measures the candidate that keeps these layers in float.
        most: At least 1.
    """
    ranking = tuple(sorted(costs, key=lambda cost: cost.rank))
    run = _Search(ranking, evaluate, most)
    run.bisect()
    run.refine()
    return SearchResult(run.best(), ranking, tuple(run.made))


class _Search:
    """The state of one search."""

    def __init__(self, ranking: tuple[LayerCost, ...], evaluate: Evaluate, most: int) -> None:
        self._ranking = ranking
        self._evaluate = evaluate
        self._most = most
        self.made: list[Evaluation] = []
        self._saved = {cost.layer: cost.saved for cost in ranking}

    def bisect(self) -> None:
        """Find the smallest number of layers to keep in float."""
        slow = sum(1 for cost in self._ranking if cost.saved <= 0)
        low, high = min(slow, len(self._ranking) - 1), len(self._ranking) - 1
        if self._first(low).keeps or low == high:
            return
        # Few layers carry most of the noise, so look near the start first: 1, 2, 4, 8, ...
        step = 1
        while self._left() and low + step < high:
            if self._first(low + step).keeps:
                high = low + step
                break
            low, step = low + step, step * 2
        else:
            if not self._left() or not self._first(high).keeps:
                return
        while high - low > 1 and self._left():
            middle = (low + high) // 2
            if self._first(middle).keeps:
                high = middle
            else:
                low = middle

    def refine(self) -> None:
        """Try the float layers of the best candidate in integers again."""
        if not self.best().keeps:
            return
        floats = self.best().floats
        pending = [sorted((n for n in floats if self._saved[n] > 0), key=self._by_saving)]
        while pending and self._left():
            group = pending.pop(0)
            floats = self.best().floats
            if not group or not floats.issuperset(group):
                continue
            if self._try(floats - set(group)).keeps or len(group) == 1:
                continue
            half = (len(group) + 1) // 2
            pending += [group[:half], group[half:]]

    def best(self) -> Evaluation:
        """Return the fastest candidate that keeps the goals, else the one that comes nearest."""
        kept = [each for each in self.made if each.keeps]
        if kept:
            return min(kept, key=lambda each: (self._lost(each), len(each.floats)))
        return max(self.made, key=lambda each: min(each.rooms.values()))

    def _lost(self, evaluation: Evaluation) -> float:
        return sum(max(0.0, self._saved[layer]) for layer in evaluation.floats)

    def _by_saving(self, layer: str) -> tuple[float, str]:
        return -self._saved[layer], layer

    def _first(self, count: int) -> Evaluation:
        return self._try(frozenset(cost.layer for cost in self._ranking[:count]))

    def _try(self, floats: frozenset[str]) -> Evaluation:
        for known in self.made:
            if known.floats == floats:
                return known
        found = self._evaluate(floats)
        self.made.append(found)
        return found

    def _left(self) -> bool:
        return len(self.made) < self._most
