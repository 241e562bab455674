"""The encoder of T5-small (35 million parameters) with seeded random weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from dev_extra import dev_extra
from random_weights import perturb_constants, seeded
from text_inputs import token_axes, token_calibration, token_inputs
from torch import nn

VOCABULARY = 32128


class T5Encoder(nn.Module):
    """T5's encoder with a named output."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Encode tokens.

        Args:
            input_ids: int64 [batch, sequence].
            attention_mask: int64 [batch, sequence], 1 for tokens and 0 for padding.

        Returns:
            `last_hidden_state` float32 [batch, sequence, 512].
        """
        result = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return {"last_hidden_state": result.last_hidden_state}


def build() -> nn.Module:
    """Return the encoder, in eval mode, with the same weights every time."""
    with dev_extra():
        from transformers import T5Config, T5EncoderModel
    with seeded(0):
        encoder = T5EncoderModel(T5Config(vocab_size=VOCABULARY))
        # torch.export fails in the reshape that follows the default attention of this model.
        encoder.set_attn_implementation("eager")
        perturb_constants(encoder)
    return T5Encoder(encoder).eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """Return two rows of 16 tokens."""
    return token_inputs(VOCABULARY)


def dynamic_shapes() -> dict[str, dict[int, tuple[str, int, int]]]:
    """Return the dynamic axes: batch and sequence."""
    return token_axes("input_ids", "attention_mask")


def calibration_data() -> Iterator[dict[str, torch.Tensor]]:
    """Yield seeded tokens; the weights are as random as they are."""
    return token_calibration(VOCABULARY)
