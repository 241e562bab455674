"""What is measured: recipes, sizes of their dynamic dimensions, and arrays of those sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RECIPES = (
    "digits_cnn",
    "minilm",
    "mobilenet_v2",
    "resnet50",
    "t5_encoder",
    "bert_base",
    "vit_base",
)


@dataclass(frozen=True)
class Case:
    """One recipe at one size.

    Attributes:
        recipe: Its name in `models/`.
        batch: Rows per call.
        sequence: Tokens per row; 0 for images.
    """

    recipe: str
    batch: int
    sequence: int = 0

    @property
    def size(self) -> str:
        """The size as tables show it."""
        return f"{self.batch} x {self.sequence}" if self.sequence else str(self.batch)


LATENCY = (
    Case("digits_cnn", 1),
    Case("digits_cnn", 8),
    Case("minilm", 1, 32),
    Case("minilm", 8, 32),
    Case("mobilenet_v2", 1),
    Case("mobilenet_v2", 8),
    Case("resnet50", 1),
    Case("resnet50", 8),
    Case("t5_encoder", 1, 128),
    Case("t5_encoder", 8, 128),
    Case("bert_base", 1, 128),
    Case("bert_base", 8, 32),
    Case("vit_base", 1),
)

OPTIMIZERS = (
    Case("bert_base", 1, 128),
    Case("bert_base", 8, 32),
    Case("minilm", 1, 32),
    Case("minilm", 8, 32),
    Case("vit_base", 1),
    Case("vit_base", 8),
    Case("t5_encoder", 1, 128),
    Case("t5_encoder", 8, 128),
    Case("gpt2", 1, 128),
    Case("gpt2", 8, 32),
    Case("resnet50", 1),
    Case("resnet50", 8),
    Case("mobilenet_v2", 1),
    Case("mobilenet_v2", 8),
)

QUANTIZATION = (
    Case("minilm", 8, 32),
    Case("mobilenet_v2", 1),
    Case("resnet50", 1),
    Case("t5_encoder", 1, 128),
    Case("vit_base", 1),
    Case("bert_base", 1, 128),
)

COLD_LOAD = (
    Case("bert_base", 1, 16),
    Case("resnet50", 1),
    Case("minilm", 1, 16),
    Case("digits_cnn", 1),
)


def arrays(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Return seeded inputs: full rows of tokens, or images of unit variance.

    Args:
        case: Which recipe and size.
        seed: Other seeds give other values.

    Returns:
        int64 [batch, sequence] each for text, float32 [batch, channels, height, width] else.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    if case.sequence:
        shape = (case.batch, case.sequence)
        tokens = {
            "input_ids": generator.integers(1, 30000, shape),
            "attention_mask": np.ones(shape, dtype=np.int64),
        }
        if case.recipe == "bert_base":
            tokens["token_type_ids"] = np.zeros(shape, dtype=np.int64)
        return tokens
    if case.recipe == "digits_cnn":
        return {"image": generator.random((case.batch, 1, 8, 8), dtype=np.float32)}
    images = generator.standard_normal((case.batch, 3, 224, 224), dtype=np.float32)
    return {"pixel_values": images}
