"""Calibration samples held in memory, to be gone through as often as a search needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.compiler.calibration.data import open_batches
from leptonc.compiler.calibration.samples import find_cut
from leptonc.compiler.export.interface import signature_of
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.sources.source import Source
from leptonc.runtime.arrays import Arrays

# Enough to tell good rounding from bad; more of them change the choices little.
MOST_SAMPLES = 64
MOST_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class CalibrationSamples:
    """Calibration samples that can be gone through again and again.

    Attributes:
        inputs: Of each call.
        digests: SHA-256 of each.
    """

    inputs: tuple[Arrays, ...]
    digests: tuple[bytes, ...] = ()

    def each(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Yield the samples from the first."""
        yield from self.inputs

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.inputs)


def read_samples(model: ir.Model, source: Source) -> CalibrationSamples:
    """Return the first samples of the source's data, checked and cut as calibration does it.

    They are at most `MOST_SAMPLES`, and at most `MOST_BYTES`.

    Args:
        model: A float graph of the model.
        source: What it was exported from.

    Raises:
        CalibrationError: There is no data, or it cannot be right.
        RecipeError: The user's own code failed.
    """
    batches = open_batches(None, source)
    signature = signature_of(model, source.axes)
    cut = find_cut(source, signature, GraphRunner(model, optimised=True))
    inputs: list[Arrays] = []
    digests: list[bytes] = []
    size = 0
    for sample in cut.samples(batches, limit=MOST_SAMPLES):
        inputs.append(sample.inputs)
        digests.append(sample.digest)
        size += sum(array.nbytes for array in sample.inputs.values())
        if size > MOST_BYTES:
            break
    return CalibrationSamples(tuple(inputs), tuple(digests))
