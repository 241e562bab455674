"""The decoder of T5-small (42 million parameters) with seeded random weights.

It reads the states that an encoder gives.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from dev_extra import dev_extra
from random_weights import perturb_constants, seeded
from text_inputs import BATCH, CALIBRATION_BATCHES, SEQUENCE, token_inputs
from torch import nn

VOCABULARY = 32128
WIDTH = 512


class T5Decoder(nn.Module):
    """T5's decoder without a cache, with a named output."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Decode tokens.

        Args:
            input_ids: int64 [batch, sequence].
            encoder_hidden_states: float32 [batch, source, 512].
            encoder_attention_mask: int64 [batch, source], 1 for tokens and 0 for padding.

        Returns:
            `last_hidden_state` float32 [batch, sequence, 512].
        """
        result = self.decoder(
            input_ids=input_ids,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            use_cache=False,
        )
        return {"last_hidden_state": result.last_hidden_state}


def build() -> nn.Module:
    """Return the decoder, in eval mode, with the same weights every time."""
    with dev_extra():
        from transformers import T5Config, T5Model
    with seeded(0):
        model = T5Model(T5Config(vocab_size=VOCABULARY, d_model=WIDTH))
        # torch.export fails in the reshape that follows the default attention of this model.
        model.set_attn_implementation("eager")
        perturb_constants(model)
    return T5Decoder(model.decoder).eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """Return two rows of 8 tokens, for sources of 16."""
    return _inputs(8, seed=0)


def _inputs(length: int, *, seed: int) -> dict[str, torch.Tensor]:
    source = token_inputs(VOCABULARY, length=2 * length)["attention_mask"]
    generator = torch.Generator().manual_seed(seed + 1)
    return {
        "input_ids": token_inputs(VOCABULARY, length=length, seed=seed)["input_ids"],
        "encoder_hidden_states": torch.randn(*source.shape, WIDTH, generator=generator),
        "encoder_attention_mask": source,
    }


def dynamic_shapes() -> dict[str, dict[int, tuple[str, int, int]]]:
    """Return the dynamic axes: batch, and the lengths of both sequences."""
    source = ("source", SEQUENCE[1], SEQUENCE[2])
    return {
        "input_ids": {0: BATCH, 1: SEQUENCE},
        "encoder_hidden_states": {0: BATCH, 1: source},
        "encoder_attention_mask": {0: BATCH, 1: source},
    }


def calibration_data() -> Iterator[dict[str, torch.Tensor]]:
    """Yield seeded tokens and states; the weights are as random as they are."""
    for seed in range(1, CALIBRATION_BATCHES + 1):
        yield _inputs(8 * seed, seed=seed)
