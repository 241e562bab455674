"""A backend as far as it can be told without importing what it needs: its name, targets, options.

The doctor reads rows where engines and the compiler's packages are absent, so a row's module
imports neither, and `load` imports the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from leptonc.backends.base import Backend, TargetRow


@dataclass(frozen=True)
class BackendRow:
    """One row of `BACKENDS`, or what an entry point of the group `leptonc.backends` refers to.

    Attributes:
        name: As manifests spell it: "ort".
        targets: What can be asked of it with `-t`.
        load: Imports the backend, and returns it.
        options: The frozen dataclass of its options; None where it has none.
        substitutes: For a package that it needs another that brings the same modules.
    """

    name: str
    targets: tuple[TargetRow, ...]
    load: Callable[[], Backend]
    options: type[Any] | None = None
    substitutes: Mapping[str, str] = field(default_factory=dict)
