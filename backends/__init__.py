"""Builds optimised graphs for engines; running what was built is `leptonc.runtime.engines`."""

from __future__ import annotations

from leptonc.backends.base import (
    Backend,
    DimRange,
    Payload,
    PayloadWeight,
    Progress,
    Target,
    TargetRow,
    Unsupported,
)
from leptonc.backends.row import BackendRow
from leptonc.backends.rows import BACKENDS, find_backend, parse_target

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendRow",
    "DimRange",
    "Payload",
    "PayloadWeight",
    "Progress",
    "Target",
    "TargetRow",
    "Unsupported",
    "find_backend",
    "parse_target",
]
