"""Rewrites of an `onnx_ir.Model` that keep what it computes, and run it faster or smaller."""

from __future__ import annotations

from leptonc.passes.base import Firing, Pass, PassStats, Refusal
from leptonc.passes.clean import Clean
from leptonc.passes.fold import Fold
from leptonc.passes.fuse_activation import FuseActivation
from leptonc.passes.fuse_attention import FuseAttention
from leptonc.passes.fuse_conv import FuseConvolution, LowerConvolution
from leptonc.passes.fuse_linear import FuseLinear, PlainLinear
from leptonc.passes.fuse_norm import FuseNormalization
from leptonc.passes.fuse_residual import FuseResidual
from leptonc.passes.fuse_rotary import FuseRotary
from leptonc.passes.lower_slices import LowerSlices
from leptonc.passes.plain_conv import PlainConvolution
from leptonc.passes.precision import Precision
from leptonc.passes.rule import TARGETS
from leptonc.passes.shapes import Shapes
from leptonc.passes.share import Share
from leptonc.passes.simplify import Simplify
from leptonc.passes.stages import optimize
from leptonc.passes.standard_operators import StandardOperators

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
