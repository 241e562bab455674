"""The small language model: its evaluation, its text, and training that repeats itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def tiny_gpt(recipe):
    return recipe("tiny_gpt")


def test_committed_weights_predict_python(tiny_gpt, predictor):
    assert tiny_gpt.evaluate(predictor(tiny_gpt.build()))["bits_per_byte"] <= 3.0


def test_committed_weights_are_small(tiny_gpt):
    assert tiny_gpt.WEIGHTS.stat().st_size < 4_000_000


def test_knowing_nothing_costs_eight_bits_per_byte(tiny_gpt):
    def uniform(inputs):
        return {"logits": np.zeros((*inputs["input_ids"].shape, 256), np.float32)}

    assert tiny_gpt.evaluate(uniform)["bits_per_byte"] == pytest.approx(8.0)


def test_knowing_everything_costs_none(tiny_gpt):
    rows = iter(tiny_gpt.windows(tiny_gpt.EVALUATED, tiny_gpt.EVALUATED_WINDOWS))

    def oracle(inputs):
        following = np.stack([next(rows)[1:] for _ in inputs["input_ids"]])
        return {"logits": 1e3 * np.eye(256)[following]}

    assert tiny_gpt.evaluate(oracle)["bits_per_byte"] == pytest.approx(0.0, abs=1e-6)


def test_bytes_to_come_change_no_prediction(tiny_gpt):
    model = tiny_gpt.build()
    rows = torch.from_numpy(tiny_gpt.windows(("heapq",), 2)[:, :40])
    other = rows.clone()
    other[:, 20:] = 65
    with torch.no_grad():
        first, second = model(rows)["logits"], model(other)["logits"]
    torch.testing.assert_close(first[:, :20], second[:, :20])
    assert not torch.allclose(first[:, 20:], second[:, 20:], atol=0.1)


def test_no_module_is_in_both_training_and_evaluation(tiny_gpt):
    assert not set(tiny_gpt.EVALUATED) & {*tiny_gpt.TRAINED, *tiny_gpt.CALIBRATED}
    assert set(tiny_gpt.CALIBRATED) <= set(tiny_gpt.TRAINED)


def test_windows_are_stretches_of_the_source(tiny_gpt):
    rows = tiny_gpt.windows(("heapq", "textwrap"), 5)
    assert rows.shape == (5, tiny_gpt.CONTEXT + 1)
    assert rows.dtype == np.int64
    text = tiny_gpt.source_of(["heapq"])
    assert bytes(rows[0].astype(np.uint8)) == text[: tiny_gpt.CONTEXT + 1]
    assert bytes(rows[1].astype(np.uint8)) in text


def test_a_module_without_source_is_named(tiny_gpt):
    with pytest.raises(ImportError, match="'_thread'"):
        tiny_gpt.source_of(["_thread"])


def test_calibration_data_are_batches_within_the_bounds(tiny_gpt):
    batches = [batch["input_ids"] for batch in tiny_gpt.calibration_data()]
    assert sum(map(len, batches)) == tiny_gpt.CALIBRATED_WINDOWS
    assert all(batch.shape[1] == tiny_gpt.CONTEXT for batch in batches)


def test_training_repeats_itself_and_learns(tiny_gpt, predictor, monkeypatch):
    monkeypatch.setattr(tiny_gpt, "TRAINED", ("heapq", "bisect"))
    monkeypatch.setattr(tiny_gpt, "ROWS", 4)
    monkeypatch.setattr(tiny_gpt, "EVALUATED_WINDOWS", 5)
    first, second = tiny_gpt.train(steps=5), tiny_gpt.train(steps=5)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert tiny_gpt.evaluate(predictor(first))["bits_per_byte"] < 8.0


def test_main_writes_what_build_loads(tiny_gpt, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tiny_gpt, "WEIGHTS", tmp_path / "tiny_gpt.safetensors")
    monkeypatch.setattr(tiny_gpt, "TRAINED", ("bisect",))
    monkeypatch.setattr(tiny_gpt, "ROWS", 2)
    monkeypatch.setattr(tiny_gpt, "EVALUATED_WINDOWS", 5)
    monkeypatch.setattr(tiny_gpt.train, "__defaults__", (1,))
    tiny_gpt.main()
    trained = tiny_gpt.train(steps=1).state_dict()
    loaded = tiny_gpt.build().state_dict()
    assert all(torch.equal(loaded[name], trained[name].half().float()) for name in trained)
    assert "bits_per_byte" in capsys.readouterr().out
