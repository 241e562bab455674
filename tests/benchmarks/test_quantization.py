"""The arithmetic of the comparison of quantisers; the figures themselves are not tested."""

from __future__ import annotations

import numpy as np
import pytest


def row(script, **sqnr):
    names = {"leptonc": 40.0, "ort-dynamic": 32.0, "ort-static-minmax": 25.0, **sqnr}
    seconds = {"plain": 4.0, "control": 4.0, "leptonc": 1.0, "ort-dynamic": 1.5}
    seconds["ort-static-minmax"] = 0.9
    paired = script("ratios").paired
    return {
        "recipe": "minilm",
        "size": "8 x 32",
        "made": {
            "plain": {"bytes": 100, "seconds": 0.0, "sqnr_db": None},
            **{name: {"bytes": 25, "seconds": 1.0, "sqnr_db": db} for name, db in names.items()},
            "ort-static-entropy": {"failure": "out of | memory"},
        },
        "ms": {name: one * 1e3 for name, one in seconds.items()},
        "ratios": {name: vars(paired([one], [4.0])) for name, one in seconds.items()},
        "to_us": {name: vars(paired([1.0], [one])) for name, one in seconds.items()},
        "rounds": 1,
    }


def test_the_peer_at_our_speed_is_one_that_takes_no_longer(script):
    line = script("quantization")._summary_line(row(script))
    assert line["fastest peer"] == "ort-static-minmax"
    assert line["SQNR at our speed"] == "25.0"
    assert line["SQNR dB"] == "40.0"
    assert line["leptonc / float"].startswith("0.250")
    assert line["MB / float"] == "0.250"


def test_contenders_that_failed_keep_their_reason(script):
    lines = script("quantization")._contender_lines(row(script))
    (failed,) = [line for line in lines if line["contender"] == "ort-static-entropy"]
    assert failed["failed"] == "out of / memory"
    assert failed["ratio"] == failed["SQNR dB"] == ""
    assert len({tuple(line) for line in lines}) == 1


def test_sqnr_is_that_of_the_first_output_over_all_data(script, tmp_path):
    quantization = script("quantization")
    exact = {"a-0": np.full(4, 3.0), "a-1": np.zeros(2), "b-0": np.full(4, 4.0)}
    found = {"a-0": np.full(4, 3.5), "a-1": np.ones(2), "b-0": np.full(4, 4.0)}
    np.savez(tmp_path / "plain.answers.npz", **exact)
    np.savez(tmp_path / "tool.answers.npz", **found)
    expected = 10 * np.log10((4 * 9 + 4 * 16) / (4 * 0.25))
    assert quantization._sqnr(tmp_path, "tool") == pytest.approx(expected)
    assert quantization._sqnr(tmp_path, "plain") is None


def test_data_to_measure_on_is_not_data_to_calibrate_with(script, tmp_path):
    case = script("cases").Case("mobilenet_v2", 1)
    quantization = script("quantization")
    quantization._write_data(case, tmp_path)
    digests = {path.read_bytes() for path in tmp_path.glob("*.npz")}
    assert len(digests) == quantization.CALIBRATION + quantization.HELD_OUT
    assert len(list(tmp_path.glob("calibration-*.npz"))) == quantization.CALIBRATION


def test_every_case_names_a_recipe_once(script):
    cases = script("cases")
    names = [case.recipe for case in cases.QUANTIZATION]
    assert len(set(names)) == len(names) == 6
