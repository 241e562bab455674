"""Rewrites of an `onnx_ir.Model` that keep what it computes, and run it faster or smaller."""

from __future__ import annotations

from leptonc.passes.base import Firing, Pass, PassStats, Refusal
from leptonc.passes.clean.clean import Clean
from leptonc.passes.fold.fold import Fold
from leptonc.passes.fusions.activation.fuse import FuseActivation
from leptonc.passes.fusions.attention.fuse import FuseAttention
from leptonc.passes.fusions.conv.fuse import FuseConvolution, LowerConvolution
from leptonc.passes.fusions.linear.fuse import FuseLinear, PlainLinear
from leptonc.passes.fusions.norm.fuse import FuseNormalization
from leptonc.passes.fusions.residual.fuse import FuseResidual
from leptonc.passes.fusions.rotary.fuse import FuseRotary
from leptonc.passes.lower.plain_conv import PlainConvolution
from leptonc.passes.lower.slices import LowerSlices
from leptonc.passes.lower.standard_operators import StandardOperators
from leptonc.passes.movement.movement import Shapes
from leptonc.passes.precision.precision import Precision
from leptonc.passes.rewriting.rule import TARGETS
from leptonc.passes.schedule import optimize
from leptonc.passes.share.share import Share
from leptonc.passes.simplify import Simplify

__all__ = ["PASSES", "TARGETS", "Firing", "Pass", "PassStats", "Refusal", "optimize"]

PASSES: tuple[type[Pass], ...] = (
    Clean,
    Fold,
    Shapes,
    Share,
    PlainLinear,
    FuseConvolution,
    FuseActivation,
    FuseNormalization,
    FuseRotary,
    FuseAttention,
    FuseLinear,
    FuseResidual,
    LowerConvolution,
    LowerSlices,
    PlainConvolution,
    StandardOperators,
    Precision,
    Simplify,
)
