"""Shares the time of a graph's nodes out to the layers that they compute."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from leptonc.passes.constants import constant
from leptonc.passes.quantization_plan import Layer

# They turn the input of a layer into integers and its output back.
CONVERSIONS = frozenset(
    {"DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "Cast", "Mul"}
)


def layer_seconds(
    model: ir.Model, layers: Sequence[Layer], seconds: Mapping[str, float]
) -> dict[str, float]:
    """Return what each layer takes, in seconds.

    A node belongs to the layer whose weight, in whatever form, it reads. Nodes that only convert
    to and from integers belong to the layers next to them, in equal parts.

    Args:
        model: The graph that was timed, as the engine runs it.
        layers: Of the float graph that it was made from.
        seconds: By node name.
    """
    owners = _owners(model, layers)
    found: defaultdict[str, float] = defaultdict(float)
    for node in model.graph:
        taken = seconds.get(node.name or "", 0.0)
        near = owners.get(node) or (_neighbours(node, owners) if _converts(node) else set())
        for name in near:
            found[name] += taken / len(near)
    return {layer.name: found[layer.name] for layer in layers}


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
