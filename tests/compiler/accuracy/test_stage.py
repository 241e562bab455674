"""Compiles with accuracy goals: kept, missed, resumed, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leptonc.compiler.accuracy.costs import Measured
from leptonc.compiler.accuracy.search import Evaluation, LayerCost
from leptonc.compiler.accuracy.search_state import SearchState
from leptonc.compiler.driver import compile_model
from leptonc.compiler.errors import CalibrationError, GateError, UsageError
from leptonc.compiler.quantization.layer_noise import LayerError
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.settings.resolve import resolve_settings
from leptonc.passes.quantize.plan import LayerChoice, QuantizationPlan
from leptonc.runtime import load

RECIPE = """
import numpy as np, torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        chance = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(64, 128), nn.Linear(128, 64)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=chance) * 0.1
        # One channel of the hidden layer is far larger than the others.
        self.first.weight.data[7] *= 60

    def forward(self, x):
        return {"y": self.second(torch.relu(self.first(x)))}

def build():
    return Two().eval()

def rows(seed):
    return np.random.default_rng(seed).standard_normal((16, 64)).astype(np.float32)

def example_inputs():
    return {"x": torch.from_numpy(rows(0))}

def dynamic_shapes():
    return {"x": {0: ("batch", 1, 64)}}

def calibration_data():
    for seed in (1, 2):
        yield {"x": rows(seed)}

def evaluate(predict):
    y = predict({"x": rows(3)})["y"]
    right = build()(torch.from_numpy(rows(3)))["y"].detach().numpy()
    return {"agreement": float((y.argmax(1) == right.argmax(1)).mean()), "loss": float(np.square(y - right).mean())}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "two.py"
    path.write_text(RECIPE)
    return str(path)


def settings_for(recipe, folder, **flags):
    return resolve_settings(recipe, {"precision": "int8", "output": folder / "two.lepton", **flags})


def test_goals_are_kept_and_the_manifest_says_how(recipe, tmp_path):
    goals = {"max_error": "sqnr=25", "evaluate": "agreement", "max_drop": "10%"}
    result = compile_model(settings_for(recipe, tmp_path, **goals))
    with load(result.artifact) as session:
        entry = session.manifest["quantization"]["ort-cpu-int8"]
    assert entry["reached"] is True
    assert entry["goals"] == ["sqnr=25", "evaluate agreement, drop 10%"]
    assert entry["figures"]["sqnr=25"] >= 25
    assert 1 <= entry["evaluations"] <= 20
    methods = {row["layer"]: row["method"] for row in entry["layers"]}
    assert set(methods.values()) - {"float"}
    for row in entry["layers"]:
        assert 0 <= row["latency_share"] <= 1
        assert (row["method"] == "float") == (row["sqnr_db"] is None)
    assert not list(tmp_path.glob("*.search.json"))


def test_a_goal_out_of_reach_leaves_the_best_effort_and_a_table(recipe, tmp_path):
    settings = settings_for(recipe, tmp_path, max_error="sqnr=90")
    with pytest.raises(GateError) as caught:
        compile_model(settings)
    assert caught.value.exit_code == 7
    assert not settings.output.exists()
    best = tmp_path / "two.best-effort.lepton"
    assert str(best) in str(caught.value.where)
    with load(best) as session:
        entry = session.manifest["quantization"]["ort-cpu-int8"]
        session.run({"x": np.zeros((1, 64), np.float32)})
    assert entry["reached"] is False
    for row in entry["layers"]:
        assert row["layer"] in str(caught.value)
    state = json.loads((tmp_path / "two.lepton.search.json").read_text())
    measured = len(state["evaluations"])
    # The same search again measures nothing again.
    told: list[str] = []
    from rich.console import Console

    from leptonc.compiler.console.progress import Steps

    with (tmp_path / "log").open("w") as log, pytest.raises(GateError):
        compile_model(settings, Steps(Console(file=log, width=200)))
    told = (tmp_path / "log").read_text()
    assert f"{measured} evaluations are known" in told


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"evaluate": "f1", "max_drop": "1%"}, "does not return 'f1'"),
        ({"max_error": "sqnr=x"}, "not understood"),
        ({"max_drop": "1%"}, "without"),
        ({"max_error": "sqnr=30", "precision": "fp32"}, "is for quantised models"),
    ],
)
def test_goals_that_mean_nothing_are_refused(recipe, tmp_path, flags, message):
    with pytest.raises(UsageError, match=message) as caught:
        compile_model(settings_for(recipe, tmp_path, **flags))
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_source_without_an_evaluation_says_so(tmp_path):
    path = tmp_path / "bare.py"
    path.write_text(RECIPE.replace("def evaluate(", "def judge("))
    with pytest.raises(UsageError, match="the source has none"):
        compile_model(
            settings_for(str(path), tmp_path, evaluate="agreement", max_drop="1%", verify=False)
        )


def test_recovery_brings_the_answer_closer(recipe, tmp_path):
    plain = settings_for(recipe, tmp_path, recovery=False)
    worst = {}
    for settings in (plain, replace(plain, recovery=True)):
        result = compile_model(settings)
        worst[settings.recovery] = min(
            error.sqnr_db for trial in result.results for error in trial.errors
        )
    assert worst[True] > worst[False] + 3.0


def test_the_state_of_a_search_is_kept_and_bound(tmp_path):
    path = tmp_path / "state.json"
    state = SearchState.open(path, "one")
    state.keep_costs([LayerCost("a", 1e-3, 2e-4)])
    state.keep(Evaluation(frozenset({"a"}), {"g": -1.0}, {"g": 3.0}))
    again = SearchState.open(path, "one")
    assert again.costs == state.costs
    assert again.find(frozenset({"a"})) == state.evaluations[0]
    assert again.find(frozenset()) is None
    other = SearchState.open(path, "two")
    assert other.costs == ()
    assert other.evaluations == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "other"}', '{"format": 1'])
def test_a_damaged_state_is_named(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match="not the state") as caught:
        SearchState.open(path, "one")
    assert str(path) in str(caught.value.where)
    assert Path(path).read_text() == text


def test_settings_files_hold_goals(tmp_path):
    path = tmp_path / "two.py"
    path.write_text(RECIPE)
    path.with_suffix(".toml").write_text(
        '[compile]\nprecision = "int8"\nevaluate = "loss:min"\nmax_drop = 0.3\nrecovery = false\n'
    )
    settings = resolve_settings(str(path), {})
    assert isinstance(settings, CompileSettings)
    assert [goal.text for goal in settings.goals] == ["evaluate loss:min, drop 0.3"]
    assert settings.recovery is False


def test_a_layer_that_is_asked_for_its_size_is_not_given_up_for_its_time():
    plan = QuantizationPlan(
        (
            LayerChoice("slow", "dynamic"),
            LayerChoice("small", "weight-only", bits=4, block=32),
            LayerChoice("fast", "dynamic"),
        )
    )
    error = LayerError(1.0, 0.01)
    names = [choice.layer for choice in plan.choices]
    measured = Measured(
        dict.fromkeys(names, error),
        {"slow": 1.0, "small": 1.0, "fast": 1.0},
        {"slow": 2.0, "small": 2.0, "fast": 0.5},
    )
    saved = {cost.layer: cost.saved for cost in measured.costs(plan)}
    assert saved["slow"] < 0 < saved["small"] < saved["fast"]
