"""What each layer costs in accuracy when it alone is quantised, in one run over the samples.

Beside each layer f of the float graph a second one is put, f' with its inputs and weights rounded
as they would be, which reads the same exact input x. The graph then returns two sums for each
layer, |f(x)|^2 and |f(x) - f'(x)|^2, and nothing else has to leave the engine:

    SQNR of the layer = 10 log10(sum |f(x)|^2 / sum |f(x) - f'(x)|^2)

One run measures all layers, where quantising one after the other would take a run for each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.compiler.quantization.layer_statistics import Samples
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.passes.graph.names import Names
from leptonc.passes.quantize.layer_matrix import LayerMatrix
from leptonc.passes.quantize.methods import DYNAMIC, STATIC
from leptonc.passes.quantize.plan import TABLE, LayerChoice, QuantizationPlan, find_layers
from leptonc.passes.quantize.scales import Scale, scale_for
from leptonc.passes.quantize.weights import rounded_weight
from leptonc.passes.ranges.table import Ranges

EXACT = "exact"


@dataclass(frozen=True, eq=False)
class RoundedLayer:
    """How one layer would be computed in integers.

    Attributes:
        node: Its name in the float graph.
        weight: What its weight becomes, in the layout of the node's own; None keeps it.
        activation: "exact" keeps the input; "dynamic" rounds it to 8 bits within the range that
            each call finds; otherwise the scale of a fixed range.
    """

    node: str
    weight: np.ndarray[Any, Any] | None
    activation: str | Scale = EXACT


@dataclass(frozen=True)
class LayerError:
    """What rounding one layer does to its own output.

    Attributes:
        signal: The sum of the squares of its output.
        noise: The sum of the squares of the differences.
    """

    signal: float
    noise: float

    @property
    def relative(self) -> float:
        """Noise for each unit of signal; 0 for a layer whose output is always 0."""
        return self.noise / self.signal if self.signal > 0 else 0.0

    @property
    def sqnr_db(self) -> float | None:
        """In dB; None when there is no difference."""
        return None if self.relative <= 0 else -10.0 * math.log10(self.relative)


def plan_errors(
    model: ir.Model, plan: QuantizationPlan, ranges: Ranges | None, samples: Samples
) -> dict[str, LayerError]:
    """Return the error of each quantised layer, by its name, when it alone is quantised.

    Embedding tables are left out: they are no products, and their rows are exact to 8 bits.

    Args:
        model: The float graph that `plan` was made for; unchanged.
        plan: How each layer is quantised.
        ranges: For the choices that are static.
        samples: Gives the calibration samples.
    """
    nodes = {layer.name: layer for layer in find_layers(model)}
    wanted = [choice for choice in plan.quantized if nodes[choice.layer].operator != TABLE]
    by_node = {nodes[choice.layer].node: choice.layer for choice in wanted}
    errors = layer_errors(model, _rounded(model, wanted, ranges, by_node), samples)
    return {by_node[node]: error for node, error in errors.items()}


def _rounded(
    model: ir.Model,
    choices: Sequence[LayerChoice],
    ranges: Ranges | None,
    by_node: dict[str, str],
) -> list[RoundedLayer]:
    by_layer = {choice.layer: choice for choice in choices}
    found: list[RoundedLayer] = []
    for node in model.graph:
        choice = by_layer.get(by_node.get(node.name or "", ""))
        if choice is None:
            continue
        layout = LayerMatrix.of(node)
        weight = layout.stored(rounded_weight(layout, choice).dequantized())
        activation: str | Scale = EXACT
        if choice.method == DYNAMIC and not choice.block:
            activation = DYNAMIC
        elif choice.method == STATIC and ranges is not None:
            value = node.inputs[0]
            assert value is not None
            low, high = choice.range(ranges, str(value.name))
            activation = scale_for(low, high, symmetric=choice.symmetric)
        found.append(RoundedLayer(node.name or "", weight, activation))
    return found


def layer_errors(
    model: ir.Model, layers: Sequence[RoundedLayer], samples: Samples
) -> dict[str, LayerError]:
    """Return the error of each layer by the name of its node.

    Args:
        model: The float graph; unchanged.
        layers: Of its main graph.
        samples: Gives the calibration samples.
    """
    if not layers:
        return {}
    forked = model.clone()
    sums = _fork(forked, layers)
    runner = GraphRunner(forked, optimised=True)
    totals = {layer.node: np.zeros(2) for layer in layers}
    for sample in samples():
        found = runner(sample)
        for node, (signal, noise) in sums.items():
            totals[node] += float(found[signal]), float(found[noise])
    return {node: LayerError(float(total[0]), float(total[1])) for node, total in totals.items()}


def _fork(model: ir.Model, layers: Sequence[RoundedLayer]) -> Mapping[str, tuple[str, str]]:
    """Put the rounded layers in, and make the sums the only outputs of the graph."""
    graph = model.graph
    names = Names(model)
    nodes = {node.name: node for node in graph}
    sums: dict[str, tuple[str, str]] = {}
    outputs: list[ir.Value] = []
    for layer in layers:
        fork = _Fork(graph, names, nodes[layer.node])
        rounded = fork.layer(layer)
        exact = fork.node.outputs[0]
        difference = fork.op("Sub", [exact, rounded])
        pair = (fork.sum_of_squares(exact), fork.sum_of_squares(difference))
        outputs.extend(pair)
        sums[layer.node] = (str(pair[0].name), str(pair[1].name))
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    return sums


class _Fork:
    """Makes the second form of one layer."""

    def __init__(self, graph: ir.Graph, names: Names, node: ir.Node) -> None:
        self.node = node
        self._graph = graph
        self._names = names
        self._last = node

    def layer(self, layer: RoundedLayer) -> ir.Value:
        inputs = list(self.node.inputs)
        inputs[0] = self._rounded_input(inputs[0], layer)
        if layer.weight is not None:
            inputs[1] = self._constant(np.asarray(layer.weight, dtype=np.float32))
        attributes = list(self.node.attributes.values())
        return self._insert(ir.Node(self.node.domain, self.node.op_type, inputs, attributes))

    def sum_of_squares(self, value: ir.Value) -> ir.Value:
        """Return a scalar. The squares of large tensors are added in float32 by the engine."""
        found = self.op("ReduceSumSquare", [value], keepdims=0)
        found.type, found.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
        return found

    def op(self, op_type: str, inputs: Sequence[ir.Value | None], **attributes: int) -> ir.Value:
        made = [ir.AttrInt64(key, value) for key, value in attributes.items()]
        return self._insert(ir.Node("", op_type, list(inputs), made))

    def _rounded_input(self, value: ir.Value | None, layer: RoundedLayer) -> ir.Value | None:
        if layer.activation == EXACT:
            return value
        if isinstance(layer.activation, str):
            node = ir.Node("", "DynamicQuantizeLinear", [value], num_outputs=3)
            quantized = self._insert(node)
            return self.op("DequantizeLinear", [quantized, *node.outputs[1:]])
        parts = [self._constant(part) for part in layer.activation.parts()]
        quantized = self.op("QuantizeLinear", [value, *parts])
        return self.op("DequantizeLinear", [quantized, *parts])

    def _constant(self, array: np.ndarray[Any, Any]) -> ir.Value:
        name = self._names.fresh("fork_constant")
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
            const_value=ir.Tensor(array, name=name),
        )
        self._graph.register_initializer(value)
        return value

    def _insert(self, node: ir.Node) -> ir.Value:
        node.name = self._names.fresh("fork")
        for output in node.outputs:
            output.name = self._names.fresh("fork")
        self._graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]
