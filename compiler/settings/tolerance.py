"""Tolerances: what still counts as the same answer.

--tolerance sqnr=70                    the smallest SQNR of any output, in dB
--tolerance sqnr=60,relative=0.01      and the largest difference, relative to the largest value
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from leptonc.compiler.errors import UsageError

# FP32 graphs of trained networks differ from their modules by rounding: 100 dB and more here.
DEFAULT_SQNR_DB = 70.0
DEFAULT_RELATIVE = 1e-3
# Of a network computed in half the width. Transformers of 12 layers were measured at 55 dB and
# more in float16 and 37 in bfloat16, a ResNet-50 with random weights at 35 and 21.
_BY_PRECISION = {
    "fp16": (30.0, 0.05),
    "bf16": (18.0, 0.25),
    # Far below what quantisation costs a sound model, far above what a wrong one gives (0 dB).
    "int8": (12.0, 0.5),
    "int4": (6.0, 1.0),
}


@dataclass(frozen=True)
class Tolerance:
    """What still counts as the same answer.

    Attributes:
        sqnr_db: The smallest SQNR in dB.
        relative: The largest absolute difference, as a fraction of the largest expected
            magnitude in the tensor.
    """

    sqnr_db: float = DEFAULT_SQNR_DB
    relative: float = DEFAULT_RELATIVE

    @classmethod
    def of(cls, precision: str) -> Tolerance:
        """Return what is expected of an artifact of `precision`."""
        return cls(*_BY_PRECISION.get(precision, (DEFAULT_SQNR_DB, DEFAULT_RELATIVE)))

    @classmethod
    def parse(cls, text: str, precision: str = "fp32") -> Tolerance:
        """Read `sqnr=60` or `sqnr=60,relative=0.01`; the other bound is that of `precision`.

        Raises:
            UsageError: An unknown name or something that is not a positive number.
        """
        values: dict[str, float] = {}
        for part in text.split(","):
            name, _, number = part.partition("=")
            try:
                values[name.strip()] = float(number)
            except ValueError:
                values[name.strip()] = math.nan
        for name, value in values.items():
            if name not in {"sqnr", "relative"} or not value > 0:
                raise UsageError(
                    f"the tolerance {text!r} is not understood at {name!r}",
                    fix="write sqnr=DECIBELS, relative=FRACTION, or both with a comma",
                )
        usual = cls.of(precision)
        return cls(values.get("sqnr", usual.sqnr_db), values.get("relative", usual.relative))
