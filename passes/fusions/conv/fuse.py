"""Takes what surrounds a convolution into it. Outputs change by rounding only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.facts.facts import Facts
from leptonc.passes.fusions.conv import affine as conv_affine
from leptonc.passes.fusions.conv import input as conv_input
from leptonc.passes.fusions.conv import pads as conv_pads
from leptonc.passes.lower import conv_activation
from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rule

RULES: tuple[Rule[Any], ...] = (*conv_affine.RULES, *conv_pads.RULES, *conv_input.RULES)
LOWER_RULES: tuple[Rule[Any], ...] = conv_activation.RULES


@dataclass(frozen=True)
class FuseConvolution:
    """Fold scales, shifts and pads into convolutions and linear layers.

    Attributes:
        target: What the model is for.
        facts: What is known of the values of the model that `run` will get, or None to infer it.
    """

    name: ClassVar[str] = "fuse-convolution"
    target: str = "generic"
    facts: Facts | None = None

    def requires(self, model: ir.Model) -> str | None:
        """Any model will do."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Rewrite until no rule fires."""
        return apply_rules(model, self.name, RULES, target=self.target, facts=self.facts)


@dataclass(frozen=True)
class LowerConvolution:
    """Join convolutions with their activations where the target has that.

    Attributes:
        target: What the model is for.
        facts: What is known of the values of the model that `run` will get, or None to infer it.
    """

    name: ClassVar[str] = "lower-convolution"
    target: str = "generic"
    facts: Facts | None = None

    def requires(self, model: ir.Model) -> str | None:
        """Any model will do."""
        del model
        return None

    def run(self, model: ir.Model) -> PassStats:
        """Rewrite until no rule fires."""
        return apply_rules(model, self.name, LOWER_RULES, target=self.target, facts=self.facts)
