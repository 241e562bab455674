"""The digits network: its evaluation, its split, and training that repeats itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def digits_cnn(recipe):
    return recipe("digits_cnn")


def test_committed_weights_classify_the_test_images(digits_cnn, predictor):
    assert digits_cnn.evaluate(predictor(digits_cnn.build()))["accuracy"] >= 0.99


def test_evaluation_notices_a_constant_answer(digits_cnn):
    def always_three(inputs):
        return {"logits": np.eye(10, dtype=np.float32)[np.full(len(inputs["image"]), 3)]}

    assert digits_cnn.evaluate(always_three)["accuracy"] < 0.2


def test_committed_weights_are_small(digits_cnn):
    assert digits_cnn.WEIGHTS.stat().st_size < 1_000_000


def test_training_repeats_itself_and_learns(digits_cnn, predictor):
    torch.manual_seed(1)
    first = digits_cnn.train(epochs=4)
    second = digits_cnn.train(epochs=4)
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert digits_cnn.evaluate(predictor(first))["accuracy"] >= 0.95


def test_training_leaves_the_callers_random_state_and_threads_alone(digits_cnn):
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    digits_cnn.train(epochs=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_main_writes_what_build_loads(digits_cnn, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(digits_cnn, "WEIGHTS", tmp_path / "digits_cnn.safetensors")
    monkeypatch.setattr(digits_cnn.train, "__defaults__", (1,))
    digits_cnn.main()
    trained = digits_cnn.train(epochs=1).state_dict()
    loaded = digits_cnn.build().state_dict()
    assert loaded.keys() == trained.keys()
    assert all(torch.equal(loaded[name], trained[name]) for name in trained)
    assert "accuracy" in capsys.readouterr().out


def test_split_is_fixed_and_complete(digits_cnn):
    data = digits_cnn.digits()
    assert data.train_images.shape == (1437, 1, 8, 8)
    assert data.test_images.shape == (360, 1, 8, 8)
    assert data.test_classes[:8].tolist() == [0, 8, 8, 9, 8, 3, 7, 5]
    train = {image.tobytes() for image in data.train_images}
    assert not any(image.tobytes() in train for image in data.test_images)


def test_calibration_data_comes_from_the_training_images(digits_cnn):
    data = digits_cnn.digits()
    train = {image.tobytes() for image in data.train_images}
    batches = [batch["image"] for batch in digits_cnn.calibration_data()]
    assert sum(len(batch) for batch in batches) == 256
    assert all(image.tobytes() in train for batch in batches for image in batch)
