"""Example inputs and dynamic dimensions: seeded, small, and in no dimension equal by chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Axes = dict[int, tuple[str, int, int]]

VOCABULARY = 128
BATCH = ("batch", 1, 8)
SEQUENCE = ("sequence", 1, 32)
TARGET = ("target", 1, 32)
PAST = ("past", 1, 24)


@dataclass(frozen=True)
class Inputs:
    """What a module is exported with.

    Attributes:
        example: Makes the arrays by argument name.
        axes: Their dynamic dimensions: name and bounds, by argument and axis.
    """

    example: Callable[[], dict[str, Tensor]]
    axes: dict[str, Axes]


def _ids(length: int, seed: int = 0) -> Tensor:
    # Small numbers are left to the special tokens.
    return torch.randint(3, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(seed))


def _mask(length: int) -> Tensor:
    """Return a mask whose second row ends in padding."""
    kept = torch.tensor([[length], [length - 3]])
    return (torch.arange(length)[None, :] < kept).to(torch.int64)


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def text() -> Inputs:
    """Return token ids and a mask: int64 [batch, sequence]."""
    return Inputs(
        lambda: {"input_ids": _ids(11), "attention_mask": _mask(11)},
        {name: {0: BATCH, 1: SEQUENCE} for name in ("input_ids", "attention_mask")},
    )


def tokens(length: int) -> Inputs:
    """Return token ids of a fixed length: int64 [batch, length]."""
    return Inputs(lambda: {"input_ids": _ids(length)}, {"input_ids": {0: BATCH}})


def images(size: int) -> Inputs:
    """Return images of unit variance: float32 [batch, 3, size, size]."""
    return Inputs(lambda: {"pixel_values": _noise(2, 3, size, size)}, {"pixel_values": {0: BATCH}})


def waveforms() -> Inputs:
    """Return sound of unit variance: float32 [batch, samples]."""
    return Inputs(
        lambda: {"input_values": _noise(2, 400)},
        {"input_values": {0: BATCH, 1: ("samples", 200, 800)}},
    )


def spectrograms(*, decoder: bool) -> Inputs:
    """Return sound as float32 [batch, 16, 60], with the text so far as int64 [batch, target]."""
    axes: dict[str, Axes] = {"input_features": {0: BATCH}}
    if not decoder:
        return Inputs(lambda: {"input_features": _noise(2, 16, 60)}, axes)
    return Inputs(
        lambda: {"input_features": _noise(2, 16, 60), "decoder_input_ids": _ids(7)},
        {**axes, "decoder_input_ids": {0: BATCH, 1: TARGET}},
    )


def text_to_text() -> Inputs:
    """Return `text()` and the answer so far: int64 [batch, target]."""
    source = text()
    return Inputs(
        lambda: {**source.example(), "decoder_input_ids": _ids(7, seed=1)},
        {**source.axes, "decoder_input_ids": {0: BATCH, 1: TARGET}},
    )


def text_and_image(size: int) -> Inputs:
    """Return `text()` and `images()` of one batch."""
    first, second = text(), images(size)
    return Inputs(lambda: {**first.example(), **second.example()}, {**first.axes, **second.axes})


def step(heads: int, head_size: int) -> Inputs:
    """Return a few tokens, and the keys and values of those before them, for two layers.

    Args:
        heads: Heads of the keys and values.
        head_size: Their size.

    Returns:
        The past as float32 [batch, heads, past, head_size]; the second row is padded in front.
    """
    past = [f"past_{kind}_{layer}" for layer in (0, 1) for kind in ("key", "value")]

    def example() -> dict[str, Tensor]:
        return {
            "input_ids": _ids(3),
            "attention_mask": torch.ones(2, 3, dtype=torch.int64),
            "past_mask": _mask(5).flip(1),
            "position_ids": torch.arange(5, 8).expand(2, -1).contiguous(),
            **{name: _noise(2, heads, 5, head_size, seed=n) for n, name in enumerate(past)},
        }

    tokens_of_step: Axes = {0: BATCH, 1: SEQUENCE}
    return Inputs(
        example,
        {
            "input_ids": tokens_of_step,
            "attention_mask": tokens_of_step,
            "past_mask": {0: BATCH, 1: PAST},
            "position_ids": tokens_of_step,
            **{name: {0: BATCH, 2: PAST} for name in past},
        },
    )
