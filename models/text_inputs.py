"""Example inputs and dynamic dimensions that the text encoders with random weights share."""

from __future__ import annotations

from collections.abc import Iterator

import torch

BATCH = ("batch", 1, 64)
SEQUENCE = ("sequence", 1, 512)
CALIBRATION_BATCHES = 8


def token_inputs(
    vocabulary: int, *, batch: int = 2, length: int = 16, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return seeded token ids and a mask in which each row after the first is padded further.

    Args:
        vocabulary: Ids are drawn from [1, vocabulary).
        batch: Number of rows.
        length: Number of tokens per row.
        seed: Other ids.

    Returns:
        `input_ids` and `attention_mask`, both int64 [batch, length].
    """
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(1, vocabulary, (batch, length), generator=generator)
    kept = length - torch.arange(batch).remainder(max(1, length // 3)) * 3
    mask = torch.arange(length)[None, :] < kept[:, None]
    return {"input_ids": input_ids, "attention_mask": mask.to(torch.int64)}


def token_calibration(vocabulary: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches as `token_inputs` gives them, longer ones among them; none is the example."""
    for seed in range(1, CALIBRATION_BATCHES + 1):
        yield token_inputs(vocabulary, length=16 * seed, seed=seed)


def token_axes(*inputs: str) -> dict[str, dict[int, tuple[str, int, int]]]:
    """Return batch and sequence as the dynamic axes of each of `inputs`."""
    return {name: {0: BATCH, 1: SEQUENCE} for name in inputs}
