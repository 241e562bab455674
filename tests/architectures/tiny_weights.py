"""Random weights in which nothing is constant, as in trained networks."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "models"))
from random_weights import perturb_constants, seeded, settle_batch_norms  # noqa: E402 - it is there

__all__ = ["draw_weights", "seeded"]

ROWS = 8


def draw_weights(module: nn.Module, image: torch.Tensor | None) -> None:
    """Perturb what is constant, and give each BatchNorm statistics.

    Args:
        module: In eval mode, where it stays.
        image: One example of shape [1, channels, height, width] for a network of convolutions.
    """
    perturb_constants(module)
    _fill_frozen_norms(module)
    if image is not None and any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        settle_batch_norms(module, pixel_values=torch.randn(ROWS, *image.shape[1:]))


@torch.no_grad()
def _fill_frozen_norms(module: nn.Module) -> None:
    """Draw what a frozen BatchNorm holds as buffers: it computes no statistics."""
    for part in module.modules():
        buffers = dict(part.named_buffers(recurse=False))
        if "running_var" not in buffers or isinstance(part, nn.BatchNorm2d):
            continue
        for name, buffer in buffers.items():
            if name in {"weight", "running_var"}:
                buffer.uniform_(0.5, 1.5)
            else:
                buffer.normal_(0, 0.1)
