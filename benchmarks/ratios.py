"""Paired ratios and how much they spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Ratio:
    """What one contender took, divided by what the other took in the same round.

    Attributes:
        median: Over all rounds.
        low: The tenth percentile of the rounds.
        high: The ninetieth.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def paired(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """Return the ratios first / second, round by round."""
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    if len(ratios) < 2:
        return Ratio(ratios[0], ratios[0], ratios[0])
    tenths = quantiles(ratios, n=10, method="inclusive")
    return Ratio(median(ratios), tenths[0], tenths[-1])
