from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from leptonc.compiler.errors import PickleRefusedError, SourceError
from leptonc.compiler.sources.opening import open_source
from leptonc.compiler.verification.trials import reference_trials

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}


@pytest.fixture
def bert(tmp_path):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, max_position_embeddings=40, **SMALL)
    BertModel(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_text_folder_is_a_source_with_dynamic_batch_and_sequence(bert):
    source = open_source(str(bert))
    assert (source.kind, source.name) == ("hugging-face", "bert")
    assert list(source.inputs) == ["input_ids", "attention_mask"]
    assert source.axes["input_ids"][1].max == 40
    trials = reference_trials(source)
    assert len(trials) == 3
    assert {"last_hidden_state", "pooler_output"} <= trials[0].expected.keys()


def test_a_vision_folder_is_a_source(tmp_path):
    config = ViTConfig(image_size=16, patch_size=8, **SMALL)
    ViTModel(config).save_pretrained(tmp_path / "vit")
    source = open_source(str(tmp_path / "vit"))
    assert source.inputs["pixel_values"].shape == (2, 3, 16, 16)
    assert "last_hidden_state" in source.reference(source.inputs)


def test_the_fingerprint_follows_the_weights(bert):
    before = open_source(str(bert)).fingerprint
    assert open_source(str(bert)).fingerprint == before
    weights = bert / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert open_source(str(bert)).fingerprint != before


def no_config(folder):
    (folder / "config.json").unlink()


def broken_config(folder):
    (folder / "config.json").write_text("{")


def own_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling.Net"}
    (folder / "config.json").write_text(json.dumps(config))


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def truncated_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_config, "has no config.json"),
        (broken_config, "config.json cannot be read"),
        (own_code, "needs code of its own"),
        (no_weights, "no safetensors weights"),
        (truncated_weights, "transformers cannot load the model"),
    ],
)
def test_an_incomplete_folder_is_named(bert, damage, message):
    damage(bert)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(str(bert))
    assert caught.value.exit_code == 3
    assert str(bert) in str(caught.value)


def more_layers(folder):
    change(folder, num_hidden_layers=2)


def another_vocabulary(folder):
    change(folder, vocab_size=60)


def unknown_class(folder):
    change(folder, architectures=["BertForNothing"])


def missing_head(folder):
    change(folder, architectures=["BertForSequenceClassification"])


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (more_layers, r"16 weights of BertModel are missing.*encoder\.layer\.1\..* and 8 more"),
        (another_vocabulary, r"another shape.*word_embeddings.*\[50, 16\].*\[60, 16\]"),
        (unknown_class, "has no model class 'BertForNothing'"),
        (missing_head, "2 weights of BertForSequenceClassification.*classifier.bias"),
    ],
)
def test_weights_are_never_made_up(bert, damage, message):
    damage(bert)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(str(bert))
    assert caught.value.exit_code == 3


def test_weights_that_are_left_unread_are_said(tmp_path):
    BertForSequenceClassification(BertConfig(vocab_size=50, **SMALL)).save_pretrained(tmp_path)
    change(tmp_path, architectures=["BertModel"])
    assert open_source(str(tmp_path)).notes == (
        "weights in the files that BertModel does not have: classifier.bias, classifier.weight",
    )


def test_the_fingerprint_covers_what_is_read_and_nothing_else(bert):
    before = open_source(str(bert)).fingerprint
    (bert / "other.safetensors").write_bytes(b"not a weight of this model")
    assert open_source(str(bert)).fingerprint == before


def test_pickled_weights_are_refused(bert):
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    with pytest.raises(PickleRefusedError, match="a pickle is a program"):
        open_source(str(bert))


def test_an_encoder_decoder_needs_a_recipe_but_its_encoder_does_not(tmp_path):
    config = T5Config(
        vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    with pytest.raises(SourceError, match="encoder-decoder"):
        open_source(str(tmp_path / "t5"))
    T5EncoderModel(config).save_pretrained(tmp_path / "encoder")
    source = open_source(str(tmp_path / "encoder"))
    assert np.isfinite(source.reference(source.inputs)["last_hidden_state"]).all()
