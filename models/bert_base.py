"""BERT-base (uncased configuration, 110 million parameters) with seeded random weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from dev_extra import dev_extra
from random_weights import perturb_constants, seeded
from text_inputs import token_axes, token_calibration, token_inputs
from torch import nn

VOCABULARY = 30522


class BertEncoder(nn.Module):
    """BERT with named outputs."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Encode tokens.

        Args:
            input_ids: int64 [batch, sequence].
            attention_mask: int64 [batch, sequence], 1 for tokens and 0 for padding.
            token_type_ids: int64 [batch, sequence], 0 or 1.

        Returns:
            `last_hidden_state` float32 [batch, sequence, 768], `pooler_output` [batch, 768].
        """
        result = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        )
        return {
            "last_hidden_state": result.last_hidden_state,
            "pooler_output": result.pooler_output,
        }


def build() -> nn.Module:
    """Return the encoder, in eval mode, with the same weights every time."""
    with dev_extra():
        from transformers import BertConfig, BertModel
    with seeded(0):
        bert = BertModel(BertConfig(vocab_size=VOCABULARY))
        # The other implementations export a guard around each Softmax that engines cannot fuse.
        bert.set_attn_implementation("eager")
        perturb_constants(bert)
    return BertEncoder(bert).eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """Return two rows of 16 tokens, each the first and the second of two segments."""
    return _in_two_segments(token_inputs(VOCABULARY))


def dynamic_shapes() -> dict[str, dict[int, tuple[str, int, int]]]:
    """Return the dynamic axes: batch and sequence."""
    return token_axes("input_ids", "attention_mask", "token_type_ids")


def calibration_data() -> Iterator[dict[str, torch.Tensor]]:
    """Yield seeded tokens; the weights are as random as they are."""
    return map(_in_two_segments, token_calibration(VOCABULARY))


def _in_two_segments(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    rows, length = inputs["input_ids"].shape
    second = torch.arange(length) >= length // 2
    return {**inputs, "token_type_ids": second.to(torch.int64).expand(rows, -1).contiguous()}
