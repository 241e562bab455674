"""One step of GPT-2 (124 million parameters) writing, with seeded random weights.

The keys and values of the tokens before come in and go out, so that no token is read twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from dev_extra import dev_extra
from random_weights import perturb_constants, seeded
from text_inputs import BATCH, CALIBRATION_BATCHES
from torch import nn

VOCABULARY = 50257
LAYERS, HEADS, HEAD = 12, 12, 64
PAST = ("past", 1, 511)


class DecodeStep(nn.Module):
    """GPT-2 with a cache as two tensors: all layers' keys, all layers' values."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, past_keys: torch.Tensor, past_values: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Read one token for each row.

        Args:
            input_ids: int64 [batch, 1].
            past_keys: float32 [12, batch, 12, past, 64].
            past_values: float32 [12, batch, 12, past, 64].

        Returns:
            `logits` float32 [batch, 50257], `keys` and `values` float32
            [12, batch, 12, past + 1, 64].
        """
        from transformers import DynamicCache

        config: Any = self.model.config
        cache = DynamicCache(config=config)
        for layer in range(LAYERS):
            cache.update(past_keys[layer], past_values[layer], layer)
        result = self.model(
            input_ids=input_ids, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        layers = result.past_key_values.layers
        return {
            "logits": result.logits[:, 0],
            "keys": torch.stack([layer.keys for layer in layers]),
            "values": torch.stack([layer.values for layer in layers]),
        }


def build() -> nn.Module:
    """Return the model, in eval mode, with the same weights every time."""
    with dev_extra():
        from transformers import GPT2Config, GPT2LMHeadModel
    with seeded(0):
        model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY))
        # The other implementations export a guard around each Softmax that engines cannot fuse.
        model.set_attn_implementation("eager")
        perturb_constants(model)
    return DecodeStep(model).eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """Return a token for each of two rows, after 7 others."""
    return _inputs(7, seed=0)


def _inputs(past: int, *, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (LAYERS, 2, HEADS, past, HEAD)
    return {
        "input_ids": torch.randint(1, VOCABULARY, (2, 1), generator=generator),
        "past_keys": torch.randn(shape, generator=generator),
        "past_values": torch.randn(shape, generator=generator),
    }


def dynamic_shapes() -> dict[str, dict[int, tuple[str, int, int]]]:
    """Return the dynamic axes: batch, and the tokens before."""
    past = {1: BATCH, 3: PAST}
    return {"input_ids": {0: BATCH}, "past_keys": past, "past_values": past}


def calibration_data() -> Iterator[dict[str, torch.Tensor]]:
    """Yield seeded tokens and pasts; the weights are as random as they are."""
    for seed in range(1, CALIBRATION_BATCHES + 1):
        yield _inputs(16 * seed - 1, seed=seed)
