"""The accuracy-aware part of a compile: which layers stay in float, and what that is based on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leptonc.backends.base import Payload
from leptonc.compiler.accuracy.search import (
    Evaluation,
    LayerCost,
    SearchResult,
    search,
)
from leptonc.compiler.accuracy.search_state import SearchState
from leptonc.compiler.accuracy.yardstick import Yardstick
from leptonc.compiler.quantization.layer_noise import LayerError
from leptonc.compiler.running.graph_runner import payload_runner
from leptonc.passes.quantize.plan import FLOAT, WEIGHT_ONLY, Layer, QuantizationPlan

Build = Callable[[QuantizationPlan], Payload]
# Gets the number of evaluations made, and the last one.
Report = Callable[[int, Evaluation], None]
# The part of the time of all layers below which a difference is chance.
CHANCE = 0.005
# What a layer is kept in float for, as --explain shows it.
KEPT_BY_SEARCH = "kept in float by the accuracy search"


@dataclass(frozen=True)
class Measured:
    """What was measured of the layers of a plan.

    Attributes:
        errors: By layer name; layers without an entry were not measured.
        float_seconds: By layer name, in the float graph.
        plan_seconds: By layer name, in the graph of the whole plan.
    """

    errors: Mapping[str, LayerError]
    float_seconds: Mapping[str, float]
    plan_seconds: Mapping[str, float]

    def costs(self, plan: QuantizationPlan) -> tuple[LayerCost, ...]:
        """Return the cost of each layer that the plan quantises and that was measured.

        Where the two times differ by less than chance does, the quantised form counts as a
        little faster: it is smaller, too. So does a layer that stores its weight alone in
        integers, whatever it takes: it is asked for its size.
        """
        least = CHANCE * sum(self.float_seconds.values())
        found: list[LayerCost] = []
        for choice in plan.quantized:
            if choice.layer not in self.errors:
                continue
            saved = self.float_seconds[choice.layer] - self.plan_seconds[choice.layer]
            if abs(saved) < least or (choice.method == WEIGHT_ONLY and saved < least):
                saved = least
            noise = self.errors[choice.layer].relative
            found.append(LayerCost(choice.layer, _rounded(noise), _rounded(saved)))
        return tuple(found)


def search_plan(
    plan: QuantizationPlan,
    build: Build,
    yardstick: Yardstick,
    state: SearchState,
    costs: Callable[[], Sequence[LayerCost]],
    *,
    report: Report | None = None,
) -> tuple[QuantizationPlan, SearchResult]:
    """Find the fastest plan that keeps the goals.

    Args:
        plan: Quantises every layer that can be.
        build: Makes the graph of a plan.
        yardstick: Measures it.
        state: What an earlier run measured; it is kept up to date.
        costs: Measures the layers, if the state does not know them.
        report: Called after each evaluation.

    Returns:
        The plan, and the search that led to it, which may not have reached the goals.
    """
    if not state.costs:
        state.keep_costs(costs())
    done = 0

    def evaluate(floats: frozenset[str]) -> Evaluation:
        nonlocal done
        found = state.find(floats)
        if found is None:
            candidate = plan.in_float(sorted(floats), KEPT_BY_SEARCH)
            found = yardstick.measure(payload_runner(build(candidate)), floats)
            state.keep(found)
        done += 1
        if report is not None:
            report(done, found)
        return found

    result = search(state.costs, evaluate)
    return plan.in_float(sorted(result.best.floats), KEPT_BY_SEARCH), result


def binding(parts: Mapping[str, object]) -> str:
    """Return the digest of all that measurements of a search depend on."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def layer_table(
    plan: QuantizationPlan, layers: Sequence[Layer], measured: Measured | None
) -> list[dict[str, Any]]:
    """Return for each layer what `--explain` shows and the manifest keeps.

    Returns:
        By layer: name, operator, method and bits; with measurements also the SQNR of its output
        in dB and the part of the time of all layers that it takes, in the graph of the plan.
    """
    known = {layer.name: layer for layer in layers}
    whole = sum(_seconds(plan, measured).values())
    rows: list[dict[str, Any]] = []
    for choice in plan.choices:
        row = {"operator": known[choice.layer].operator, **choice.to_json()}
        if measured is not None:
            error = measured.errors.get(choice.layer) if choice.method != FLOAT else None
            row["sqnr_db"] = _db(error)
            share = _seconds(plan, measured)[choice.layer] / whole if whole else 0.0
            row["latency_share"] = round(share, 4)
        rows.append(row)
    return rows


def _seconds(plan: QuantizationPlan, measured: Measured | None) -> dict[str, float]:
    if measured is None:
        return {choice.layer: 0.0 for choice in plan.choices}
    return {
        choice.layer: (
            measured.float_seconds if choice.method == FLOAT else measured.plan_seconds
        ).get(choice.layer, 0.0)
        for choice in plan.choices
    }


def _db(error: LayerError | None) -> float | None:
    found = None if error is None else error.sqnr_db
    return None if found is None else round(found, 1)


def _rounded(value: float) -> float:
    """Return two significant digits: the rest of a measurement is chance."""
    return float(f"{value:.2g}")


def cost_table(result: SearchResult) -> list[str]:
    """Return what each layer costs as lines of text, those to keep in float first."""
    width = max(len(cost.layer) for cost in result.ranking)
    lines = [f"{'layer':<{width}}  SQNR dB  saves ms  in float"]
    for cost in result.ranking:
        sqnr = f"{-10.0 * math.log10(cost.noise):7.1f}" if cost.noise > 0 else " " * 7
        kept = "yes" if cost.layer in result.best.floats else ""
        lines.append(f"{cost.layer:<{width}}  {sqnr}  {cost.saved * 1e3:8.3f}  {kept}".rstrip())
    return lines
