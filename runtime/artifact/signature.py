"""What a model takes and gives: names, element types and shapes.

A shape is a tuple of integers and `Dim`s. A `Dim` that occurs twice stands for one size:
`[batch, 8]` and `[batch, 4]` take arrays with the same first dimension.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dim:
    """A dimension whose size is chosen at each call.

    Attributes:
        name: Equal names are equal sizes, within one call.
        min: The smallest size, at least 0.
        max: The largest size, None when there is no bound.
    """

    name: str
    min: int = 0
    max: int | None = None

    def admits(self, size: int) -> bool:
        """Return whether `size` is within the bounds."""
        return self.min <= size and (self.max is None or size <= self.max)

    @property
    def bounds(self) -> str:
        """The bounds as text: `1..64`, or `1..any`."""
        return f"{self.min}..{'any' if self.max is None else self.max}"

    def __str__(self) -> str:
        return self.name


Shape = tuple[int | Dim, ...]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: As in the source model.
        dtype: As NumPy spells it; "str" is text (object arrays of str).
        shape: One entry per axis.
    """

    name: str
    dtype: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Signature:
    """All inputs and outputs, in the order of the source model."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __str__(self) -> str:
        inputs = ", ".join(map(str, self.inputs))
        return f"({inputs}) -> ({', '.join(map(str, self.outputs))})"
