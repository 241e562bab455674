"""The two half-width float types, and what becomes of weights that are stored in one.

float16 (IEEE 754 binary16) holds 11 significant bits between 6e-8 and 65504; bfloat16 holds 8 in
the range of float32. Values are rounded to nearest, ties to even, as every engine does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.graph.content import MADE_FROM, unmapping

Array = np.ndarray[Any, Any]

# Elements looked at in one go: a weight is never held a second time as a whole.
_PIECE = 1 << 20


@dataclass(frozen=True)
class HalfType:
    """A float type of two bytes.

    Attributes:
        name: As precisions are spelled: "fp16".
        dtype: Of ONNX.
        largest: The largest finite number.
        mask_floor: What stands for "no key here" in place of a number that the type cannot hold.
            Softmax makes exactly 0 of it beside any real score. In float16 it is three quarters
            of the lowest number, so that a score can be added to it without reaching -inf; the
            lowest number of bfloat16 absorbs every score.
    """

    name: str
    dtype: ir.DataType
    largest: float
    mask_floor: float


FP16 = HalfType("fp16", ir.DataType.FLOAT16, 65504.0, -49152.0)
BF16 = HalfType(
    "bf16",
    ir.DataType.BFLOAT16,
    float(ir.DataType.BFLOAT16.max),
    float(ir.DataType.BFLOAT16.min),
)
HALF_TYPES = {half.name: half for half in (FP16, BF16)}

# Rounding to float16 leaves 70 dB and more of a weight. Less is left where many elements are
# nearer to zero than its smallest numbers.
_LEAST_SQNR_DB = 60.0


@dataclass(frozen=True)
class Survey:
    """What a half type makes of a weight.

    Attributes:
        beyond: How many finite elements are too large for it.
        farthest: The element that is farthest from zero.
        positive_beyond: Whether one of those is positive.
        lost: How many elements that are not zero become zero.
        sqnr_db: Of the elements within range.
    """

    beyond: int
    farthest: float
    positive_beyond: bool
    lost: int
    sqnr_db: float

    def problem(self, half: HalfType) -> str | None:
        """Return why the weight cannot be stored as `half`, or None when it can."""
        if self.beyond:
            return (
                f"{self.beyond} elements up to {self.farthest:g} are outside the range of "
                f"{half.name}, which ends at {half.largest:g}"
            )
        if self.sqnr_db < _LEAST_SQNR_DB and half is FP16:
            return (
                f"{half.name} would leave {self.sqnr_db:.0f} dB of it: its elements are near to "
                f"the smallest number of {half.name}, and {self.lost} would become zero"
            )
        return None


def survey(tensor: ir.TensorProtocol, half: HalfType) -> Survey:
    """Look at every element of a FLOAT tensor, in pieces."""
    beyond, lost, farthest, positive = 0, 0, 0.0, False
    signal, noise = 0.0, 0.0
    for piece in _pieces(tensor):
        with np.errstate(over="ignore", invalid="ignore"):
            stored = piece.astype(half.dtype.numpy()).astype(np.float32)
        finite = np.isfinite(piece)
        outside = finite & ~np.isfinite(stored)
        if outside.any():
            beyond += int(np.count_nonzero(outside))
            values = piece[outside]
            positive |= bool((values > 0).any())
            farthest = max(farthest, float(values[np.argmax(np.abs(values))]), key=abs)
        inside = finite & ~outside
        lost += int(np.count_nonzero(inside & (piece != 0) & (stored == 0)))
        exact, rounded = piece[inside].astype(np.float64), stored[inside].astype(np.float64)
        signal += float(np.sum(exact**2))
        noise += float(np.sum((exact - rounded) ** 2))
    sqnr = np.inf if noise == 0.0 else 10.0 * float(np.log10(signal / noise))
    return Survey(beyond, farthest, positive, lost, float(sqnr))


def _pieces(tensor: ir.TensorProtocol) -> Iterator[Array]:
    with unmapping([tensor]):
        flat = tensor.numpy().reshape(-1)
        for start in range(0, flat.size, _PIECE):
            yield flat[start : start + _PIECE]
        del flat


def narrowed(
    tensor: ir.TensorProtocol, half: HalfType, name: str, *, clamp: bool = False
) -> ir.TensorProtocol:
    """Return a FLOAT tensor as `half`, converted each time it is read, and not kept.

    Args:
        tensor: Of type FLOAT.
        half: What to convert to.
        name: Of the new tensor.
        clamp: Put `mask_floor` in place of elements below the range.
    """

    def make() -> ir.TensorProtocol:
        with unmapping([tensor]):
            source = tensor.numpy()
            with np.errstate(over="ignore", invalid="ignore"):
                array = source.astype(half.dtype.numpy())
            if clamp:
                below = np.isfinite(source) & ~np.isfinite(array.astype(np.float32))
                array = np.where(below, np.asarray(half.mask_floor, array.dtype), array)
            del source
        return ir.Tensor(array, dtype=half.dtype, name=name)

    shape = tensor.shape.numpy()
    lazy = ir.LazyTensor(make, dtype=half.dtype, shape=ir.Shape(shape), name=name)
    lazy.meta[MADE_FROM] = (id(tensor), half.name, clamp)
    return lazy
