"""Rewrites of an `onnx_ir.Model` that keep what it computes, and run it faster or smaller."""

from __future__ import annotations

from leptonc.passes.base import Firing, PassStats, Refusal
from leptonc.passes.pipeline import Context, Pass
from leptonc.passes.schedule import PASSES, optimize
from leptonc.passes.targets import TARGETS

__all__ = ["PASSES", "TARGETS", "Context", "Firing", "Pass", "PassStats", "Refusal", "optimize"]
