"""Cross-layer equalisation: no channel between two layers is much larger than the others.

For layers W1, W2 with Relu or nothing between them, r1[c] the largest magnitude in output channel
c of W1, and r2[c] that in input channel c of W2, the factor

    s[c] = sqrt(r1[c] / r2[c])

makes both ranges sqrt(r1[c] r2[c]) (M. Nagel et al., 2019, section 4.1). It is rounded to a power
of two, so that the outputs of the graph keep their bits, and channels that are zero stay.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.graph.structure import count_nodes
from leptonc.passes.pipeline import Context
from leptonc.passes.rescale.channels import (
    LARGEST_POWER,
    LAYERS,
    Operand,
    Scalable,
    find_scalable,
    scale_channels,
)

# A chain of layers settles in a few sweeps; each sweep at least halves what is left to do.
SWEEPS = 20


@dataclass(frozen=True)
class Equalize:
    """Equalise the weights of layers that follow one another."""

    name: ClassVar[str] = "equalize"

    def run(self, model: ir.Model, _: Context = Context()) -> PassStats:
        """Scale until no factor is a power of two other than 1."""
        before = count_nodes(model)
        counts: Counter[str] = Counter()
        found, refused = find_scalable(model)
        between = [each for each in found if each.source.op_type in LAYERS]
        scaled: set[str] = set()
        for _sweep in range(SWEEPS):
            settled = True
            for each in between:
                powers = equalizing_powers(each)
                if powers.any():
                    scale_channels(each, powers.tolist())
                    scaled.add(each.source.outputs[0].name or "")
                    settled = False
            if settled:
                break
        counts["tensors scaled"] = len(scaled)
        return PassStats(
            name=self.name,
            counts=tuple(sorted((+counts).items())),
            nodes_before=before,
            nodes_after=count_nodes(model),
            refused=refused,
        )


def equalizing_powers(found: Scalable) -> np.ndarray[Any, Any]:
    """Return the powers of two that bring both sides of a tensor to one range, int64 `[C]`."""
    first = _largest(found.divided[0])
    second = np.max([_largest(each) for each in found.multiplied], axis=0)
    alive = (first > 0) & (second > 0)
    ratio = np.where(alive, first, 1.0) / np.where(alive, second, 1.0)
    powers = np.clip(np.rint(0.5 * np.log2(ratio)), -LARGEST_POWER, LARGEST_POWER)
    return powers.astype(np.int64)


def _largest(operand: Operand) -> np.ndarray[Any, Any]:
    return np.asarray(np.abs(operand.array().astype(np.float64)).max(axis=1))
