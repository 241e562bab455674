"""GPT-2 (124 million parameters) reading a prompt, with seeded random weights.

Reading the prompt, or prefill, is the first step of generating text: all tokens at once, and of
the logits only those that choose the next token.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from dev_extra import dev_extra
from random_weights import perturb_constants, seeded
from text_inputs import token_axes, token_calibration, token_inputs
from torch import nn

VOCABULARY = 50257


class Prefill(nn.Module):
    """GPT-2 without a cache, with a named output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Read prompts.

        Args:
            input_ids: int64 [batch, sequence].
            attention_mask: int64 [batch, sequence], 1 for tokens and 0 for padding.

        Returns:
            `logits` float32 [batch, 50257], at the last position.
        """
        result = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, logits_to_keep=1
        )
        return {"logits": result.logits[:, 0]}


def build() -> nn.Module:
    """Return the model, in eval mode, with the same weights every time."""
    with dev_extra():
        from transformers import GPT2Config, GPT2LMHeadModel
    with seeded(0):
        model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY))
        # The other implementations export a guard around each Softmax that engines cannot fuse.
        model.set_attn_implementation("eager")
        perturb_constants(model)
    return Prefill(model).eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """Return two rows of 16 tokens."""
    return token_inputs(VOCABULARY)


def dynamic_shapes() -> dict[str, dict[int, tuple[str, int, int]]]:
    """Return the dynamic axes: batch and sequence."""
    return token_axes("input_ids", "attention_mask")


def calibration_data() -> Iterator[dict[str, torch.Tensor]]:
    """Yield seeded tokens; the weights are as random as they are."""
    return token_calibration(VOCABULARY)
