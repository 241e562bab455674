"""What is quantised and how: the layers of a graph, a choice for each, and the plan they make.

A plan is made for the graph that quantisation starts from: after the stage `merge`, when
normalisation is folded and Q, K, V are one product. Its names are those of output tensors, which
every rewrite keeps, so the ranges of the canonical graph can be looked up in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.errors import PlanError
from leptonc.passes.graph.constants import constant
from leptonc.passes.quantize.methods import (
    BLOCKS,
    FLOAT,
    LAYER_METHODS,
    STATIC,
    WEIGHT_ONLY,
)
from leptonc.passes.quantize.scales import RoundedWeight
from leptonc.passes.ranges.methods import DEFAULT_PERCENTILE, METHODS
from leptonc.passes.ranges.table import Ranges

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = frozenset({"MatMul", "Gemm"})
TABLE = "Gather"
# Notes on an integer weight: the layer that it belongs to and how that is computed, so that what an
# engine made of it can be compared with what was asked.
LAYER_NOTE, METHOD_NOTE = "leptonc.layer", "leptonc.method"
# A table below this many elements costs less than the nodes that would take it apart.
_SMALLEST_TABLE = 1 << 14


@dataclass(frozen=True)
class Layer:
    """A node with a constant weight that can be quantised.

    Attributes:
        name: Its output tensor: unique, and the same before and after fusion.
        node: The name of the node.
        operator: "Conv", "ConvTranspose", "MatMul", "Gemm", or "Gather" for an embedding table.
        weight: The weight's initialiser.
        inputs: The tensors that are not constants; one, but for a Gemm with a computed bias.
        output: The output tensor.
        parameters: Elements of the weight.
        products: Multiplications in one call where the sizes are known, else None.
    """

    name: str
    node: str
    operator: str
    weight: str
    inputs: tuple[str, ...]
    output: str
    parameters: int
    products: int | None = None


@dataclass(frozen=True)
class LayerChoice:
    """How one layer is computed.

    Attributes:
        layer: `Layer.name`.
        method: "static": integers within ranges known beforehand. "dynamic": the range of the
            input is found in each call. "weight-only": the weight alone is stored in integers.
            "float": as it is.
        bits: Of the weight, 8 or 4.
        block: Rows of the weight `[K, N]` that share a scale; 0 for one scale per column.
        range_method: How the range of a static input follows from what was observed.
        percent: For the method "percentile".
        symmetric: Whether the zero point of activations is 0.
        rounding: How the weight was rounded, in words: "nearest", or as `round_best` says.
        rounded: The weight as integers, from GPTQ and the like; None rounds to the nearest.
        shift: Added to the bias of a static convolution or Gemm, float32 `[N]`, so that the means
            of its outputs stay; None adds nothing.
        reason: Why, where that is not plain: shown by --explain.
    """

    layer: str
    method: str
    bits: int = 8
    block: int = 0
    range_method: str = "minmax"
    percent: float = DEFAULT_PERCENTILE
    symmetric: bool = False
    rounding: str = "nearest"
    rounded: RoundedWeight | None = None
    shift: np.ndarray[Any, Any] | None = None
    reason: str = ""

    def note(self, weight: ir.Value) -> ir.Value:
        """Write on an integer weight which layer it belongs to, and return it."""
        weight.metadata_props[LAYER_NOTE] = self.layer
        weight.metadata_props[METHOD_NOTE] = self.method
        return weight

    def range(self, ranges: Ranges, tensor: str) -> tuple[float, float]:
        """Return the range of the static input or output `tensor`.

        Raises:
            RangesError: As `Ranges.range`.
        """
        return ranges.range(
            tensor, self.range_method, percent=self.percent, symmetric=self.symmetric
        )

    def to_json(self) -> dict[str, Any]:
        """Return all but the rounded weight and the shift, which are in the graph."""
        found: dict[str, Any] = {"layer": self.layer, "method": self.method}
        if self.method != FLOAT:
            found |= {"bits": self.bits, "block": self.block, "rounding": self.rounding}
        if self.method == STATIC:
            found |= {"range_method": self.range_method, "symmetric": self.symmetric}
            if self.range_method == "percentile":
                found["percent"] = self.percent
        if self.shift is not None:
            found["bias"] = "corrected"
        if self.reason:
            found["reason"] = self.reason
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LayerChoice:
        """Read what `to_json` gave.

        Raises:
            PlanError: A value that a choice cannot have.
        """
        known = {"layer", "method", "bits", "block", "rounding", "range_method", "symmetric"}
        known |= {"percent", "reason", "bias"}
        if not {"layer", "method"} <= set(value) <= known:
            raise PlanError(
                f"not a choice for a layer: it has {', '.join(sorted(value))}",
                fix="write it with QuantizationPlan.to_json",
            )
        made = cls(**{key: each for key, each in value.items() if key != "bias"})
        made.require_possible()
        return made

    def require_possible(self) -> None:
        """Refuse what no layer can be.

        Raises:
            PlanError: Unknown method, or sizes that do not exist.
        """
        wrong = None
        if self.method not in LAYER_METHODS:
            wrong = f"{self.method!r} is not one of {', '.join(LAYER_METHODS)}"
        elif self.bits not in (8, 4):
            wrong = f"{self.bits} bits; 8 and 4 are possible"
        elif self.block not in (0, *BLOCKS):
            wrong = f"blocks of {self.block}; possible are {', '.join(map(str, BLOCKS))}"
        elif self.bits == 4 and self.method not in (WEIGHT_ONLY, FLOAT):
            wrong = "4 bits are for weight-only quantisation"
        elif self.method == STATIC and self.range_method not in METHODS:
            wrong = f"the range method {self.range_method!r} is not one of {', '.join(METHODS)}"
        if wrong is not None:
            raise PlanError(
                f"layer {self.layer!r} cannot be quantised like that: {wrong}",
                fix="see docs/quantisation.md for what goes together",
            )


@dataclass(frozen=True)
class QuantizationPlan:
    """A choice for each layer of a graph, in graph order."""

    choices: tuple[LayerChoice, ...]

    def __getitem__(self, layer: str) -> LayerChoice:
        """Return the choice for a layer.

        Raises:
            PlanError: The plan knows no such layer.
        """
        for choice in self.choices:
            if choice.layer == layer:
                return choice
        raise PlanError(
            f"the plan says nothing of the layer {layer!r}",
            fix="make the plan for this graph: default_plan(model, ...)",
        )

    def with_choices(self, changed: Sequence[LayerChoice]) -> QuantizationPlan:
        """Return the plan with the choices of some layers replaced."""
        for choice in changed:
            self[choice.layer]
        new = {choice.layer: choice for choice in changed}
        return QuantizationPlan(tuple(new.get(old.layer, old) for old in self.choices))

    def in_float(self, layers: Sequence[str], reason: str = "") -> QuantizationPlan:
        """Return the plan with `layers` left in float."""
        return self.with_choices([LayerChoice(name, FLOAT, reason=reason) for name in layers])

    @property
    def quantized(self) -> tuple[LayerChoice, ...]:
        """The choices that are not float."""
        return tuple(choice for choice in self.choices if choice.method != FLOAT)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the plan as the manifest holds it."""
        return [choice.to_json() for choice in self.choices]

    @classmethod
    def from_json(cls, value: Sequence[Mapping[str, Any]]) -> QuantizationPlan:
        """Read what `to_json` gave; rounded weights are not in it.

        Raises:
            PlanError: A value that a choice cannot have.
        """
        return cls(tuple(LayerChoice.from_json(entry) for entry in value))


def find_layers(model: ir.Model) -> tuple[Layer, ...]:
    """Return the layers of the main graph that can be quantised, in graph order."""
    found: list[Layer] = []
    for node in model.graph:
        layer = layer_of(node)
        if layer is not None:
            found.append(layer)
    return tuple(found)


def layer_of(node: ir.Node) -> Layer | None:
    """Return `node` as a layer, or None when its weight is computed, small or not float32."""
    operator = node.op_type
    if node.domain or operator not in {*CONVOLUTIONS, *PRODUCTS, TABLE}:
        return None
    weight = node.inputs[0 if operator == TABLE else 1]
    tensor = constant(weight)
    if weight is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    shape = [int(size) for size in tensor.shape.numpy()]
    if 0 in shape or not _fits(node, shape):
        return None
    inputs = tuple(
        str(value.name) for value in node.inputs if value is not None and constant(value) is None
    )
    name = str(node.outputs[0].name)
    return Layer(
        name,
        node.name or "",
        operator,
        str(weight.name),
        inputs,
        name,
        tensor.size,
        _products(node, shape),
    )


def _fits(node: ir.Node, shape: Sequence[int]) -> bool:
    if node.op_type == TABLE:
        axis = node.attributes.get_int("axis", 0)
        return len(shape) == 2 and axis in (0, -2) and shape[0] * shape[1] >= _SMALLEST_TABLE
    if node.op_type in CONVOLUTIONS:
        return len(shape) >= 3
    if len(shape) != 2:
        return False
    return node.op_type != "Gemm" or not node.attributes.get_int("transA", 0)


def _products(node: ir.Node, shape: Sequence[int]) -> int | None:
    """Count multiplications: each output element takes one for each row of the weight matrix."""
    if node.op_type == TABLE:
        return 0
    sizes = node.outputs[0].shape
    if node.op_type == "ConvTranspose":
        value = node.inputs[0]
        sizes = None if value is None else value.shape
    known = [size for size in sizes or () if isinstance(size, int)]
    if sizes is None or len(known) != len(sizes):
        return None
    elements = math.prod(known)
    if node.op_type == "Conv":
        rows = 1
        for size in shape[1:]:
            rows *= size
        return elements * rows
    if node.op_type == "ConvTranspose":
        for size in shape[1:]:
            elements *= size
        return elements
    turned = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
    return elements * shape[1 if turned else 0]
