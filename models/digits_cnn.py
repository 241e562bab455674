"""A small convolutional network for scikit-learn's 8 x 8 digits, trained by this file.

`python models/digits_cnn.py` trains it again, with the same result each time, and writes
`digits_cnn.safetensors` beside this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from dev_extra import dev_extra
from random_weights import seeded
from safetensors.torch import load_file, save_file
from torch import nn

WEIGHTS = Path(__file__).resolve().with_suffix(".safetensors")
BATCH = ("batch", 1, 64)
EPOCHS = 40
LEARNING_RATE = 4e-3

Arrays = Mapping[str, np.ndarray]


class DigitsCnn(nn.Module):
    """Three convolutions with BatchNorm, two poolings, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, 32),
            *_convolution(32, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 64),
            nn.AvgPool2d(4),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Classify images.

        Args:
            image: float32 [batch, 1, 8, 8], ink between 0 and 1.

        Returns:
            `logits`, float32 [batch, 10].
        """
        return {"logits": self.classifier(self.features(image))}


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


@dataclass(frozen=True)
class Digits:
    """Images float32 [n, 1, 8, 8] and their classes int64 [n], split once and for all."""

    train_images: np.ndarray
    train_classes: np.ndarray
    test_images: np.ndarray
    test_classes: np.ndarray


def digits() -> Digits:
    """Return scikit-learn's 1,797 digits: four fifths to train on, one fifth to test on."""
    with dev_extra():
        from sklearn.datasets import load_digits
    loaded = load_digits()
    images = (loaded.images / 16).astype(np.float32)[:, None]
    classes = loaded.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = np.split(order, [len(order) * 4 // 5])
    return Digits(images[train], classes[train], images[test], classes[test])


def build() -> nn.Module:
    """Return the trained network, in eval mode."""
    model = DigitsCnn()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """Return the first two training images."""
    return {"image": torch.from_numpy(digits().train_images[:2])}


def dynamic_shapes() -> dict[str, dict[int, tuple[str, int, int]]]:
    """Return the dynamic axis: batch."""
    return {"image": {0: BATCH}}


def calibration_data() -> Iterator[dict[str, np.ndarray]]:
    """Yield 256 training images in batches of 32."""
    images = digits().train_images[:256]
    for start in range(0, len(images), 32):
        yield {"image": images[start : start + 32]}


def evaluate(predict: Callable[[Arrays], Arrays]) -> dict[str, float]:
    """Classify the test images.

    Args:
        predict: From the module's inputs to its outputs, as arrays by name.

    Returns:
        `accuracy`: the share of the test images whose class is found.
    """
    data = digits()
    rows = BATCH[2]
    found = [
        predict({"image": data.test_images[start : start + rows]})["logits"].argmax(axis=1)
        for start in range(0, len(data.test_images), rows)
    ]
    return {"accuracy": float((np.concatenate(found) == data.test_classes).mean())}


def train(epochs: int = EPOCHS) -> nn.Module:
    """Train on the training split, with images moved by up to one pixel.

    Returns:
        The trained network in eval mode: the same bits for the same `epochs`.
    """
    data = digits()
    images, classes = torch.from_numpy(data.train_images), torch.from_numpy(data.train_classes)
    with seeded(0):
        model = DigitsCnn()
        starts = range(0, len(images), BATCH[2])
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, epochs=epochs, steps_per_epoch=len(starts)
        )
        for _ in range(epochs):
            order = torch.randperm(len(images))
            for start in starts:
                rows = order[start : start + BATCH[2]]
                logits = model(_moved(images[rows]))["logits"]
                loss = nn.functional.cross_entropy(logits, classes[rows], label_smoothing=0.1)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
    return model.eval()


def _moved(images: torch.Tensor) -> torch.Tensor:
    """Move each image of [n, 1, 8, 8] by -1, 0 or 1 pixels in both directions."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    corners = torch.randint(0, 3, (len(images), 2)).tolist()
    return torch.stack(
        [image[:, y : y + 8, x : x + 8] for image, (y, x) in zip(padded, corners, strict=True)]
    )


def main() -> None:
    """Train, write the weights, and print the accuracy on the test images."""
    model = train()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, WEIGHTS)

    def predict(inputs: Arrays) -> Arrays:
        with torch.no_grad():
            outputs = model(torch.from_numpy(inputs["image"]))
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size} bytes, {evaluate(predict)}")


if __name__ == "__main__":
    main()
