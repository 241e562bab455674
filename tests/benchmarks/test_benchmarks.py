"""The arithmetic and the plumbing of the benchmarks; the figures themselves are not tested."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_ratios_are_paired_by_round(script):
    # The second round is slow for both: only pairing sees that the ratio is always one half.
    ratio = script("ratios").paired([1.0, 10.0, 1.5], [2.0, 20.0, 3.0])
    assert (ratio.median, ratio.low, ratio.high) == (0.5, 0.5, 0.5)


def test_spread_of_a_ratio_is_its_tenth_and_ninetieth_percentile(script):
    ratio = script("ratios").paired([float(n) for n in range(101)], [100.0] * 101)
    assert str(ratio) == "0.500 (0.100 to 0.900)"


def test_a_single_round_has_no_spread(script):
    assert str(script("ratios").paired([1.0], [4.0])) == "0.250 (0.250 to 0.250)"


def test_every_case_names_a_recipe(script):
    cases = script("cases")
    recipes = {path.stem for path in (ROOT / "models").glob("*.py")}
    assert set(cases.RECIPES) <= recipes
    assert {case.recipe for case in cases.LATENCY} == set(cases.RECIPES)
    assert {case.recipe for case in cases.COLD_LOAD} <= set(cases.RECIPES)
    assert {case.recipe for case in cases.OPTIMIZERS} <= recipes
    assert set(script("optimize_with").TRANSFORMERS) <= {case.recipe for case in cases.OPTIMIZERS}


def test_arrays_are_the_same_each_time_and_of_the_size_asked_for(script):
    cases = script("cases")
    for case in (*cases.LATENCY, *cases.OPTIMIZERS):
        first, second = cases.arrays(case), cases.arrays(case)
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert {array.shape[0] for array in first.values()} == {case.batch}
        if case.sequence:
            assert {array.shape[1] for array in first.values()} == {case.sequence}


def test_tables_carry_the_command_the_machine_and_the_rows(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/somewhere/latency.py", "--only", "minilm"])
    script("tables").write(
        "speed",
        title="Speed",
        notes="Read it so.",
        table=[{"recipe": "minilm", "ratio": "0.9"}],
        rows=[{"recipe": "minilm", "ratio": 0.9}],
        folder=tmp_path,
    )
    text = (tmp_path / "speed.md").read_text(encoding="utf-8")
    assert text.startswith("# Speed\n\n`python benchmarks/latency.py --only minilm`\n")
    assert "| recipe | ratio |\n|---|---|\n| minilm | 0.9 |\n\nRead it so.\n" in text
    assert "onnxruntime " in text
    assert text.strip() in capsys.readouterr().out
    record = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert record["rows"] == [{"recipe": "minilm", "ratio": 0.9}]
    assert record["machine"]["numpy"] == np.__version__


def test_memory_of_a_tree_counts_the_children(script):
    # 40 MB here and 80 MB in a child, both held until the child has ended.
    child = "a = bytearray(80_000_000); sum(a)"
    parent = (
        "import subprocess, sys; a = bytearray(40_000_000)\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)\n"
    )
    peak = script("memory_of_tree").peak_of([sys.executable, "-c", parent])
    assert 120e6 < peak < 200e6


@pytest.mark.parametrize("module", ["memory_of_tree.peak_of", "contenders.answer"])
def test_a_command_that_fails_stops_the_benchmark_with_its_message(script, module):
    name, function = module.split(".")
    command = [sys.executable, "-c", "import sys; sys.exit('no such luck')"]
    with pytest.raises(SystemExit, match="no such luck"):
        getattr(script(name), function)(command)


def test_what_a_command_prints_is_its_answer(script):
    code = "import sys; print('chatter', file=sys.stderr); print('{\\n \"seconds\": 2\\n}')"
    assert script("contenders").answer([sys.executable, "-c", code]) == {"seconds": 2}


def test_difference_is_relative_to_the_largest_value_of_an_output(script):
    race = script("race")
    expected = [np.array([1.0, -4.0], np.float32), np.array([100.0], np.float32)]
    found = [np.array([1.5, -4.0], np.float32), np.array([101.0], np.float32)]
    difference = race._difference(found, expected)
    assert difference == {"max_abs": 1.0, "max_relative": 0.125}


@pytest.mark.parametrize("wrong", [np.zeros((2, 1), np.float32), np.zeros(2, np.float64)])
def test_outputs_of_another_kind_are_not_compared(script, wrong):
    with pytest.raises(SystemExit, match="different shapes or dtypes"):
        script("race")._difference([wrong], [np.zeros(2, np.float32)])


def test_stages_that_are_not_ours_are_left_out(script):
    stages = {"load": 5.0, "export": 7.0, "optimize": 1.0, "verify": 0.5}
    assert script("compile_time")._ours(stages) == 1.5


SMALL = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 1, 8, 8] image) => (float[batch, 1, 8, 8] y) { y = OPERATOR(image) }
"""


@pytest.fixture
def small(tmp_path):
    """Write the model with one operator."""

    def write(operator):
        path = tmp_path / f"{operator}.onnx"
        path.write_bytes(
            onnx.parser.parse_model(SMALL.replace("OPERATOR", operator)).SerializeToString()
        )
        return path

    return write


def test_a_race_takes_turns_until_its_rounds_are_over(script, small):
    contenders, case = script("contenders"), script("cases").Case("digits_cnn", 2)
    paths = {"plain": small("Neg"), "twice": small("Neg"), "other": small("Abs")}
    command = contenders.race_command(case, paths, threads=1, rounds=2, seed=0, least_calls=1)
    result = contenders.answer(command)
    assert {name: len(seconds) for name, seconds in result["blocks"].items()} == dict.fromkeys(
        paths, 2
    )
    assert result["differences"]["twice"] == {"max_abs": 0.0, "max_relative": 0.0}
    # The image is from 0 to 1, so the other answer is off by twice its largest value.
    assert result["differences"]["other"]["max_relative"] == pytest.approx(2.0)


def test_a_race_that_is_out_of_time_runs_its_least_rounds(script, small):
    contenders, case = script("contenders"), script("cases").Case("digits_cnn", 1)
    command = contenders.race_command(
        case, {"plain": small("Neg")}, threads=1, rounds=50, seed=0, seconds=0, least_rounds=2
    )
    assert len(contenders.answer(command)["blocks"]["plain"]) == 2


@pytest.mark.parametrize("tool", ["plain", "leptonc", "onnxsim", "onnxslim", "ort_fusions"])
def test_an_optimiser_runs_in_a_process_of_its_own(script, small, tmp_path, tool):
    source = small("Neg")
    found = script("optimizers")._optimize(tool, source, tmp_path, "digits_cnn")
    assert (found["nodes"], found["operators"], found["weight_bytes"]) == (1, {"Neg": 1}, 0)
    assert found["seconds"] > 0 and found["peak_bytes"] >= 0
    assert (tmp_path / f"{tool}.onnx").is_file()


def test_an_optimiser_that_fails_is_reported_with_its_reason(script, small, tmp_path):
    found = script("optimizers")._optimize("transformers", small("Neg"), tmp_path, "resnet50")
    assert found == {"failure": "onnxruntime.transformers has no model type for it"}


def tried(**changes):
    return {"seconds": 1.0, "peak_bytes": 10, "nodes": 3, "weight_bytes": 4, **changes}


def test_an_optimiser_whose_graph_answers_wrongly_has_failed(script, tmp_path):
    optimizers = script("optimizers")
    np.savez(tmp_path / "plain.npz", np.array([1.0, -4.0]))
    np.savez(tmp_path / "onnxsim.npz", np.array([1.0, -3.0]))
    np.savez(tmp_path / "onnxslim.npz", np.array([[1.0, -4.0]]))
    np.savez(tmp_path / "leptonc.npz", np.array([1.0, -4.0]))
    tries = [tried(), tried(seconds=3.0), tried(seconds=2.0)]
    assert optimizers._outcome("leptonc", tries, tmp_path) == tried(seconds=2.0)
    wrong = optimizers._outcome("onnxsim", tries, tmp_path)
    assert wrong == {"failure": "its answers differ by 0.25 (relative)"}
    assert "inf" in optimizers._outcome("onnxslim", tries, tmp_path)["failure"]
    np.savez(tmp_path / "leptonc.npz", np.array([1.0, 4.0]))
    with pytest.raises(SystemExit, match="leptonc fails"):
        optimizers._outcome("leptonc", tries, tmp_path)


def test_the_summary_is_against_the_best_peer_of_each_race(script):
    def race(**ratios):
        return {
            "size": "1",
            "best_peer": min(ratios, key=lambda name: -ratios[name]),
            "ratios": {name: {"median": value} for name, value in ratios.items()},
        }

    rows = [
        {"recipe": "bert_base", "races": [race(plain=0.9, onnxsim=0.5)]},
        {"recipe": "minilm", "races": [race(plain=0.4)]},
        {"recipe": "resnet50", "races": [race(plain=1.5)]},
    ]
    text = script("optimizers")._summary(rows)
    assert text == (
        "Worst ratio to the best peer: 1.500. Geometric mean over the transformers: 0.600."
    )


def test_what_was_measured_is_kept_until_asked_again(script, tmp_path, monkeypatch):
    optimizers = script("optimizers")
    measured = []
    monkeypatch.setattr(optimizers, "our_folder", lambda: tmp_path)
    monkeypatch.setattr(
        optimizers, "_measure", lambda recipe, *_: measured.append(recipe) or {"recipe": recipe}
    )

    def kept(recipe, *arguments):
        monkeypatch.setattr(sys, "argv", ["optimizers.py", *arguments])
        return optimizers._kept(recipe, [], optimizers._options())

    assert kept("minilm") == kept("minilm") == {"recipe": "minilm"}
    assert measured == ["minilm"]
    kept("minilm", "--again")
    kept("minilm", "--threads", "1")
    kept("gpt2")
    assert measured == ["minilm", "minilm", "minilm", "gpt2"]
