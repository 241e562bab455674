"""A backend as far as it can be told without importing what it needs: its name, targets, options.

The doctor reads rows where engines and the compiler's packages are absent, so a row's module
imports neither, and `load` imports the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leptonc.backends.base import Backend


@dataclass(frozen=True)
class TargetRow:
    """One target of a backend.

    Attributes:
        name: What people write for it: "ort-cpu".
        device: "cpu", or "gpu" for NVIDIA's.
        platform: What the passes rewrite for: one of `leptonc.passes.TARGETS`.
        extra: The extra of the distribution that brings the engine; empty when its plain
            requirements do.
        standard_operators: The engine takes ONNX's own operators only, so those of others are
            written in them before anything else.
        plain_convolutions: Convolutions that were fused are taken apart before half the width.
        needs_ranges: The engine builds for ranges of sizes: `Target.profiles` says which.
        timed: The compiler itself can run what is built: a search for layers to quantise builds
            and times its candidates. Those of other targets are judged by their graph.
    """

    name: str
    device: str
    platform: str
    extra: str = ""
    standard_operators: bool = False
    plain_convolutions: bool = False
    needs_ranges: bool = False
    timed: bool = False


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
