"""Source: what a recipe, an .onnx file, an exported program or a model folder became.

One `Source` is all that the later steps see, so they do not care where a model came from.
It holds the thing to export, a reference that says what the right answer is, example inputs,
the dynamic dimensions with their bounds, and a fingerprint of code and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from leptonc.compiler.sources.dimensions import DynamicAxes
from leptonc.runtime.arrays import Arrays

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

SourceKind = Literal["recipe", "onnx", "exported-program", "hugging-face"]


class Reference(Protocol):
    """The source model as a function: named arrays in, named arrays out, in output order."""

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Compute the outputs for `inputs`."""
        ...


Evaluate = Callable[[Callable[[Mapping[str, np.ndarray]], Arrays]], dict[str, float]]


@dataclass(frozen=True)
class UserData:
    """Calibration data as the user's code gives it.

    Attributes:
        name: What it is called in messages.
        items: Batches, which nothing is known of yet.
        length: How many, if that can be told beforehand.
    """

    name: str
    items: Iterator[object]
    length: int | None = None


@dataclass(frozen=True)
class Source:
    """A model to compile.

    Attributes:
        kind: Where it came from.
        name: A short name for messages and for the manifest; never a path.
        inputs: Example inputs by name, in the model's input order.
        axes: The dynamic dimensions of each input; empty when every dimension is static.
        reference: Computes the right outputs.
        fingerprint: SHA-256, in hexadecimal, of the code and the weights.
        program: What to export, or None when `graph` is set.
        graph: An ONNX graph with lazy weights, or None when `program` is set.
        user_code: The folder whose files count as the user's own in error messages.
        weight_bytes: The size of parameters and buffers.
        calibration_data: Opens the recipe's own calibration data, from its start; None when
            the source brings none.
        evaluate: The recipe's own evaluation of a function from inputs to outputs; None when
            the source brings none.
        notes: What the user should know of how it was read, a sentence each.
    """

    kind: SourceKind
    name: str
    inputs: Arrays
    axes: DynamicAxes
    reference: Reference
    fingerprint: str
    program: torch.nn.Module | torch.export.ExportedProgram | None = None
    graph: ir.Model | None = None
    user_code: Path | None = None
    weight_bytes: int = 0
    calibration_data: Callable[[], UserData] | None = None
    evaluate: Evaluate | None = None
    notes: tuple[str, ...] = ()
