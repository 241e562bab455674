"""What quantising each layer costs and brings, as it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from leptonc.compiler.accuracy.search import LayerCost
from leptonc.compiler.quantization.layer_noise import LayerError
from leptonc.passes.quantize.methods import WEIGHT_ONLY
from leptonc.passes.quantize.plan import QuantizationPlan

# The part of the time of all layers below which a difference is chance.
CHANCE = 0.005


@dataclass(frozen=True)
class Measured:
    """What was measured of the layers of a plan.

    Attributes:
        errors: By layer name; layers without an entry were not measured.
        float_seconds: By layer name, in the float graph.
        plan_seconds: By layer name, in the graph of the whole plan.
    """

    errors: Mapping[str, LayerError]
    float_seconds: Mapping[str, float]
    plan_seconds: Mapping[str, float]

    def costs(self, plan: QuantizationPlan) -> tuple[LayerCost, ...]:
        """Return the cost of each layer that the plan quantises and that was measured.

        Where the two times differ by less than chance does, the quantised form counts as a
        little faster: it is smaller, too. So does a layer that stores its weight alone in
        integers, whatever it takes: it is asked for its size.
        """
        least = CHANCE * sum(self.float_seconds.values())
        found: list[LayerCost] = []
        for choice in plan.quantized:
            if choice.layer not in self.errors:
                continue
            saved = self.float_seconds[choice.layer] - self.plan_seconds[choice.layer]
            if abs(saved) < least or (choice.method == WEIGHT_ONLY and saved < least):
                saved = least
            noise = self.errors[choice.layer].relative
            found.append(LayerCost(choice.layer, _rounded(noise), _rounded(saved)))
        return tuple(found)


def _rounded(value: float) -> float:
    """Return two significant digits: the rest of a measurement is chance."""
    return float(f"{value:.2g}")
