"""Gates: budgets that an artifact must keep to get its name.

--gate size=400MB      bytes of the file (B, kB, MB, GB; powers of 1000)
--gate load=0.5s       import, load and hash check in a new process (s, ms)
--gate latency=20ms    median of warm runs at the example's shape (s, ms)
--gate sqnr=90dB       the lowest SQNR of any output at any shape tried (dB)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from leptonc.compiler.errors import UsageError

UNITS = {
    "size": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9},
    "load": {"s": 1.0, "ms": 1e-3},
    "latency": {"s": 1.0, "ms": 1e-3},
    "sqnr": {"dB": 1.0, "": 1.0},
}
_QUANTITY = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z]*)")


@dataclass(frozen=True)
class Gate:
    """One budget, in bytes, seconds or dB; `text` is how the user wrote it."""

    name: str
    bound: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read `size=400MB`, `load=0.5s`, `latency=20ms` or `sqnr=90dB`.

        Raises:
            UsageError: An unknown gate, number or unit.
        """
        name, _, quantity = text.partition("=")
        match = _QUANTITY.fullmatch(quantity)
        units = UNITS.get(name, {})
        if match is None or match["unit"] not in units:
            raise UsageError(
                f"the gate {text!r} is not understood",
                fix="write size=400MB, load=0.5s, latency=20ms or sqnr=90dB",
            )
        return cls(name, float(match["number"]) * units[match["unit"]], text)

    def breach(self, value: float) -> str | None:
        """Return how `value` breaks this gate, or None when it keeps it."""
        kept = value >= self.bound if self.name == "sqnr" else value <= self.bound
        return None if kept else f"{self.name} is {_spelt(self.name, value)}, the gate {self.text}"


def _spelt(name: str, value: float) -> str:
    if name == "size":
        return f"{value:,.0f} bytes"
    return f"{value:.1f} dB" if name == "sqnr" else f"{value * 1e3:.1f} ms"
