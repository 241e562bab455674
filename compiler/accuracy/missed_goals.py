"""What is said, and kept, when no mix of layers keeps the goals."""

from __future__ import annotations

import math
from pathlib import Path

from leptonc.compiler.accuracy.search import SearchResult
from leptonc.compiler.errors import GateError


def best_effort_path(output: Path) -> Path:
    """Return where the best candidate goes when none keeps the goals."""
    return output.with_name(f"{output.stem}.best-effort{output.suffix}")


def goals_missed(search: SearchResult, output: Path) -> GateError:
    """Return the error for goals that no plan reaches, with what each layer costs."""
    figures = "; ".join(
        f"{goal}: {value:.5g} at best" for goal, value in search.best.figures.items()
    )
    table = "\n    ".join(_cost_table(search))
    return GateError(
        f"no mix of quantised and float layers keeps the goals: {figures}\n    {table}",
        where=f"{output} was not written; the best one is {best_effort_path(output)}",
        fix="lower the goal, give more calibration data, or try another --quantization",
    )


def _cost_table(result: SearchResult) -> list[str]:
    """Return what each layer costs as lines of text, those to keep in float first."""
    width = max(len(cost.layer) for cost in result.ranking)
    lines = [f"{'layer':<{width}}  SQNR dB  saves ms  in float"]
    for cost in result.ranking:
        sqnr = f"{-10.0 * math.log10(cost.noise):7.1f}" if cost.noise > 0 else " " * 7
        kept = "yes" if cost.layer in result.best.floats else ""
        lines.append(f"{cost.layer:<{width}}  {sqnr}  {cost.saved * 1e3:8.3f}  {kept}".rstrip())
    return lines
