"""A backend as far as it can be told without importing what it needs: its name, targets, options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leptonc.backends.base import Backend


@dataclass(frozen=True)
class TargetRow:
    """One target of a backend.

    Attributes:
        name: What people write for it: "ort-cpu".
        device: "cpu" or "gpu".
        platform: What the passes rewrite for: one of `leptonc.passes.TARGETS`.
    """

    name: str
    device: str
    platform: str


@dataclass(frozen=True)
class BackendRow:
    """One row of `BACKENDS`.

    Attributes:
        name: As manifests spell it: "ort".
        targets: What can be asked of it with `-t`.
        load: Imports the backend, and returns it.
        options: The frozen dataclass of its options; None where it has none.
    """

    name: str
    targets: tuple[TargetRow, ...]
    load: Callable[[], Backend]
    options: type[Any] | None = None
