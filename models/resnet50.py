"""ResNet-50 (26 million parameters) with seeded random weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from dev_extra import dev_extra
from image_classifier import ImageClassifier, image_axes, image_calibration, image_inputs
from random_weights import perturb_constants, seeded, settle_batch_norms
from torch import nn

CLASSES = 1000


def build() -> nn.Module:
    """Return the classifier, in eval mode, with the same weights every time."""
    with dev_extra():
        from transformers import ResNetConfig, ResNetForImageClassification
    with seeded(0):
        config = ResNetConfig()
        config.num_labels = CLASSES
        classifier = ImageClassifier(ResNetForImageClassification(config))
        perturb_constants(classifier)
        settle_batch_norms(classifier, **image_inputs(batch=8, size=96))
    return classifier.eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """Return two images of 224 x 224."""
    return image_inputs()


def dynamic_shapes() -> dict[str, dict[int, tuple[str, int, int]]]:
    """Return the dynamic axis: batch."""
    return image_axes()


def calibration_data() -> Iterator[dict[str, torch.Tensor]]:
    """Yield seeded images; the weights are as random as they are."""
    return image_calibration()
