"""What is said when no mix of layers keeps the goals."""

from __future__ import annotations

from pathlib import Path

from leptonc.compiler.accuracy.missed_goals import best_effort_path, goals_missed
from leptonc.compiler.accuracy.search import Evaluation, LayerCost, SearchResult


def test_the_error_has_the_figures_and_what_each_layer_costs():
    best = Evaluation(frozenset({"noisy"}), {"sqnr=40": -0.1}, {"sqnr=40": 36.123456})
    costs = (LayerCost("noisy", 1e-2, 2e-3), LayerCost("exact", 0.0, -1e-3))
    error = goals_missed(SearchResult(best, costs, (best,)), Path("out/m.lepton"))
    assert error.exit_code == 7
    assert error.what.splitlines() == [
        "no mix of quantised and float layers keeps the goals: sqnr=40: 36.123 at best",
        "    layer  SQNR dB  saves ms  in float",
        "    noisy     20.0     2.000  yes",
        "    exact             -1.000",
    ]
    assert error.where == "out/m.lepton was not written; the best one is out/m.best-effort.lepton"
    assert best_effort_path(Path("out/m.lepton")) == Path("out/m.best-effort.lepton")
