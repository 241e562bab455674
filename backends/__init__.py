"""Builds optimised graphs for engines; running what was built is `leptonc.runtime.engines`."""

from __future__ import annotations

from leptonc.backends.base import Backend, Payload, Target
from leptonc.backends.row import BackendRow, TargetRow
from leptonc.backends.rows import BACKENDS, find_backend, parse_target

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendRow",
    "Payload",
    "Target",
    "TargetRow",
    "find_backend",
    "parse_target",
]
