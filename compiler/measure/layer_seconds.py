"""Shares the time of a graph's nodes out to the layers that they compute."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from leptonc.passes.graph.constants import constant
from leptonc.passes.quantize.methods import DYNAMIC, STATIC
from leptonc.passes.quantize.plan import CONVOLUTIONS, TABLE, Layer, QuantizationPlan, layer_of

# They turn the input of a layer into integers and its output back.
CONVERSIONS = frozenset(
    {"DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "Cast", "Mul"}
)
# What the engine's own rewrites at load put behind the names of nodes and tensors.
_REARRANGED = re.compile(r"(_token_\d+|_nchwc)$")


def layer_seconds(
    model: ir.Model, layers: Sequence[Layer], seconds: Mapping[str, float]
) -> dict[str, float]:
    """Return what each layer takes, in seconds.

    A node belongs to the layer whose weight, in whatever form, it reads. Nodes that only convert
    to and from integers belong to the layers next to them, in equal parts.

    Args:
        model: The graph that was timed, as the engine runs it.
        layers: Of the float graph that it was made from.
        seconds: By the name that the engine reports. Where it rearranges convolutions as it loads
            the graph, that is `node_token_3`, or `output_nchwc` after the tensor that is made.
    """
    owners = _owners(model, layers)
    by_node = _by_node(model, seconds)
    found: defaultdict[str, float] = defaultdict(float)
    for node in model.graph:
        taken = by_node.get(node, 0.0)
        near = owners.get(node) or (_neighbours(node, owners) if _converts(node) else set())
        for name in near:
            found[name] += taken / len(near)
    return {layer.name: found[layer.name] for layer in layers}


def estimated_seconds(model: ir.Model, plan: QuantizationPlan) -> dict[str, float]:
    """Return an estimate of what each layer takes, for engines that cannot run here.

    It is the number of multiplications, with sizes that are not known as 1, at a rate of 10^12 in
    a second, and twice that where both operands are integers.
    """
    found: dict[str, float] = {}
    choices = {choice.layer: choice for choice in plan.choices}
    for node in model.graph:
        layer = layer_of(node)
        if layer is None:
            continue
        choice = choices.get(layer.name)
        in_integers = choice is not None and choice.method in (STATIC, DYNAMIC)
        count = 0 if layer.operator == TABLE else layer.parameters * _positions(node)
        found[layer.name] = count / (2e12 if in_integers else 1e12)
    return found


def _positions(node: ir.Node) -> int:
    """Return at how many places the weight of a node is applied, as far as that is known."""
    shape = node.outputs[0].shape
    if node.op_type == "ConvTranspose":
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None:
        return 1
    sizes = shape[2:] if node.op_type in CONVOLUTIONS else shape[:-1]
    return math.prod(size for size in sizes if isinstance(size, int))


def _by_node(model: ir.Model, seconds: Mapping[str, float]) -> dict[ir.Node, float]:
    """Return the seconds of each node, whatever name the engine runs it under."""
    by_name = {node.name: node for node in model.graph}
    by_output = {value.name: node for node in model.graph for value in node.outputs}
    found: defaultdict[ir.Node, float] = defaultdict(float)
    for name, taken in seconds.items():
        plain = _REARRANGED.sub("", name)
        node = by_name.get(name) or by_name.get(plain)
        if node is None and plain != name:
            node = by_output.get(plain)
        if node is not None:
            found[node] += taken
    return found


def _owners(model: ir.Model, layers: Sequence[Layer]) -> dict[ir.Node, set[str]]:
    """Return the layer of each node that reads a weight or makes the output of a layer."""
    # The longest name first: one weight's name can be the beginning of another's.
    by_weight = sorted(layers, key=lambda layer: -len(layer.weight))
    shared = {layer.weight for layer in layers}
    alone = {weight for weight in shared if sum(each.weight == weight for each in layers) == 1}
    by_node = {layer.node: layer.name for layer in layers}
    owners: dict[ir.Node, set[str]] = {}
    for node in model.graph:
        if node.name in by_node:
            owners[node] = {by_node[node.name]}
            continue
        for value in node.inputs:
            if value is None or not value.name or constant(value) is None:
                continue
            match = next((each for each in by_weight if value.name.startswith(each.weight)), None)
            if match is not None and match.weight in alone:
                owners[node] = {match.name}
                break
    return owners


def _converts(node: ir.Node) -> bool:
    return node.op_type in CONVERSIONS


def _neighbours(node: ir.Node, owners: Mapping[ir.Node, set[str]]) -> set[str]:
    """Return the layers that read what `node` makes, through conversions; else that feed it."""
    after: set[str] = set()
    pending = [use.node for output in node.outputs for use in output.uses()]
    seen: set[ir.Node] = set()
    while pending:
        reader = pending.pop()
        if reader in seen:
            continue
        seen.add(reader)
        if reader in owners:
            after |= owners[reader]
        elif _converts(reader):
            pending.extend(use.node for output in reader.outputs for use in output.uses())
    if after:
        return after
    before = [value.producer() for value in node.inputs if value is not None]
    return {
        name for producer in before if producer is not None for name in owners.get(producer, ())
    }
