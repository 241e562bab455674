"""What the image recipes share: a wrapper that names the output, images, the dynamic axis."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

SIZE = 224
CALIBRATION_BATCHES = 8


class ImageClassifier(nn.Module):
    """An image classifier of transformers, returning its logits by name."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Classify images.

        Args:
            pixel_values: float32 [batch, 3, 224, 224].

        Returns:
            `logits`, float32 [batch, 1000].
        """
        return {"logits": self.classifier(pixel_values=pixel_values).logits}


def image_inputs(*, batch: int = 2, size: int = SIZE, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return seeded images with coarse and fine detail, of about unit variance.

    Returns:
        `pixel_values`, float32 [batch, 3, size, size].
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, 8, 8, generator=generator)
    fine = torch.randn(batch, 3, size, size, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="nearest")
    return {"pixel_values": 0.8 * smooth + 0.6 * fine}


def image_calibration() -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches of two images, none of which is the example."""
    for seed in range(1, CALIBRATION_BATCHES + 1):
        yield image_inputs(seed=seed)


def image_axes() -> dict[str, dict[int, tuple[str, int, int]]]:
    """Return the batch as the only dynamic axis."""
    return {"pixel_values": {0: ("batch", 1, 64)}}
