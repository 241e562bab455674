"""Rewrites of an `onnx_ir.Model` that keep what it computes, and run it faster or smaller.

What rewrites is imported when it is first asked for: names of methods are to be had without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leptonc.passes.base import Firing, PassStats, Refusal
    from leptonc.passes.pipeline import Context, Pass
    from leptonc.passes.schedule import PASSES, optimize
    from leptonc.passes.targets import TARGETS

__all__ = ["PASSES", "TARGETS", "Context", "Firing", "Pass", "PassStats", "Refusal", "optimize"]


def __getattr__(name: str) -> Any:
    """Import what was asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from leptonc.passes import base, pipeline, schedule, targets

    return next(
        vars(home)[name] for home in (base, pipeline, schedule, targets) if name in vars(home)
    )
