"""Computes in half the width: float16 or bfloat16, by explicit casts.

The graph keeps its inputs and outputs, in float32. What computes in half the width reads and
writes half-width values; where such a value meets one in float32 there is a Cast. Every type is
in the graph: engines that take types as they are written need nothing else. Weights are
converted when they are read. The bodies of If, Loop and Scan take and give float32 and compute
in half the width inside; functions stay as they are.

Which nodes stay in float32, and why, is said in `leptonc.passes.precision.placement`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats, Refusal
from leptonc.passes.facts.facts import Facts
from leptonc.passes.graph.constants import constant
from leptonc.passes.graph.names import Names
from leptonc.passes.graph.opset import obstacle_to_raising, raise_opset
from leptonc.passes.graph.structure import annotation, count_nodes, graphs, roots
from leptonc.passes.pipeline import Context
from leptonc.passes.precision.half_types import BF16, HALF_TYPES, HalfType, narrowed
from leptonc.passes.precision.operators import BF16_SINCE, half_input, half_output
from leptonc.passes.precision.placement import Plan, make_plan
from leptonc.passes.rewriting.site import operator
from leptonc.passes.targets import ORT_CUDA

_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class Precision:
    """Compute in half the width where that is safe.

    Attributes:
        precision: "fp16" or "bf16".
        keep: Names of nodes that shall stay in float32.
    """

    name: ClassVar[str] = "precision"
    precision: str = "fp16"
    keep: frozenset[str] = frozenset()

    def requires(self, model: ir.Model) -> str | None:
        """Initializers must be free, and what is kept must be there."""
        if self.precision not in HALF_TYPES:
            return f"{self.precision!r} is not one of {', '.join(HALF_TYPES)}"
        if not roots(model)[0].initializers:
            return f"IR version {model.ir_version} makes every initializer an input"
        names = {node.name for graph in graphs(model.graph) for node in graph}
        missing = sorted(self.keep - names)
        return f"there is no node {missing[0]!r} to keep in float32" if missing else None

    def run(self, model: ir.Model, context: Context = Context()) -> PassStats:
        """Rewrite `model` in place."""
        half = HALF_TYPES[self.precision]
        before = count_nodes(model)
        facts = context.known(model)
        names = Names(model)
        opset = _opset_for(model, half, context.target)
        plan = make_plan(model, half, facts, target=context.target, keep=self.keep, opset=opset)
        if not any(_narrows(node, facts) for node in plan.half):
            return _stats(self.name, plan, before, before, _Changes())
        raise_opset(model, opset, names)
        work = _Work(model, half, facts, plan, names, _Changes())
        for graph in graphs(model.graph):
            work.convert(graph)
        return _stats(self.name, plan, before, count_nodes(model), work.changes)


def _opset_for(model: ir.Model, half: HalfType, target: str) -> int:
    """Return the opset at which the most operators may compute in `half`.

    ONNX Runtime registers many CUDA kernels for the version before 22 alone.
    """
    current = model.opset_imports.get("", 1)
    if half is not BF16 or target == ORT_CUDA:
        return current
    wanted = [
        BF16_SINCE.get(operator(node), 13)
        for graph in graphs(model.graph)
        for node in graph
        if not node.domain
    ]
    for version in sorted({v for v in wanted if current < v <= 24}, reverse=True):
        if obstacle_to_raising(model, version) is None:
            return version
    return current


def _narrows(node: ir.Node, facts: Facts) -> bool:
    values = [*node.inputs, *node.outputs]
    return any(facts.dtype(value) == _FLOAT for value in values)


@dataclass
class _Changes:
    casts: int = 0
    weights: int = 0


def _stats(name: str, plan: Plan, before: int, after: int, changes: _Changes) -> PassStats:
    changed = changes.casts + changes.weights
    counts = (
        ("casts", changes.casts),
        ("half-width-nodes", len(plan.half) if changed else 0),
        ("half-width-weights", changes.weights),
    )
    refused = tuple(
        Refusal(node.name or "", f"stays in float32: {reason}", "half-width")
        for node, reason in plan.wide.items()
    )
    return PassStats(name, counts, before, after, refused)


@dataclass
class _Work:
    """One run of the pass.

    Attributes:
        model: The model.
        half: The type.
        facts: Types as they were before.
        plan: What becomes of each node.
        names: Gives free names.
        changes: What was done.
    """

    model: ir.Model
    half: HalfType
    facts: Facts
    plan: Plan
    names: Names
    changes: _Changes

    def __post_init__(self) -> None:
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._narrow: set[ir.Value] = set()
        self._node_names = {n.name for graph in graphs(self.model.graph) for n in graph}

    def convert(self, graph: ir.Graph) -> None:
        """Convert the nodes of one graph, whose outer graphs were converted before."""
        for node in list(graph):
            is_half = node in self.plan.half
            for index, value in enumerate(node.inputs):
                if value is not None and self.facts.dtype(value) == _FLOAT:
                    self._feed(node, index, value, narrow=is_half and half_input(node, index))
            if is_half:
                for index, output in enumerate(node.outputs):
                    if self.facts.dtype(output) == _FLOAT and half_output(node, index):
                        self._narrow.add(output)
                        output.type = ir.TensorType(self.half.dtype)
        for index, output in enumerate(graph.outputs):
            if output in self._narrow:
                self._widen_output(graph, index, output)

    def _feed(self, node: ir.Node, index: int, value: ir.Value, *, narrow: bool) -> None:
        """Let `node` read `value` in the width that it computes in."""
        if node.op_type == "Cast" and not node.domain:
            return
        if (value in self._narrow) == narrow:
            return
        to = self.half.dtype if narrow else _FLOAT
        known = self._casts.get((value, to))
        if known is None:
            known = self._weight(value) if constant(value) is not None else self._cast(value, to)
            self._casts[value, to] = known
        node.replace_input_with(index, known)

    def _weight(self, value: ir.Value) -> ir.Value:
        tensor = constant(value)
        assert tensor is not None
        name = self.names.fresh(f"{value.name}_{self.half.name}")
        small = narrowed(tensor, self.half, name, clamp=value in self.plan.clamped)
        weight = ir.Value(
            name=name,
            type=ir.TensorType(self.half.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=small,
        )
        weight.metadata_props.update(value.metadata_props)
        self.model.graph.register_initializer(weight)
        self.changes.weights += 1
        return weight

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        """Cast `value` right after it is computed, where bodies can see the result too."""
        graph = value.graph
        assert isinstance(graph, ir.Graph)
        suffix = self.half.name if to == self.half.dtype else "fp32"
        node, out = self._cast_node(value, to, self.names.fresh(f"{value.name}_{suffix}"))
        producer = value.producer()
        if producer is not None:
            graph.insert_after(producer, node)
        else:
            graph.insert_before(graph[0], node)
        return out

    def _cast_node(self, value: ir.Value, to: ir.DataType, name: str) -> tuple[ir.Node, ir.Value]:
        out = ir.Value(name=name, type=ir.TensorType(to), shape=value.shape)
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", to.value)], outputs=[out])
        node.name = self._node_name(f"{name}_cast")
        self.changes.casts += 1
        return node, out

    def _node_name(self, stem: str) -> str:
        name, number = stem, 0
        while name in self._node_names:
            number += 1
            name = f"{stem}_{number}"
        self._node_names.add(name)
        return name

    def _widen_output(self, graph: ir.Graph, index: int, output: ir.Value) -> None:
        """Give the graph its output in float32 again, under the name that it had."""
        known = self._casts.get((output, _FLOAT))
        name = output.name or ""
        if known is not None and not known.is_graph_output() and known.graph is graph:
            output.name = self.names.fresh(f"{name}_{self.half.name}")
            known.name = name
        elif known is None:
            output.name = self.names.fresh(f"{name}_{self.half.name}")
            node, known = self._cast_node(output, _FLOAT, name)
            graph.append(node)
            self._casts[output, _FLOAT] = known
        known.doc_string, output.doc_string = output.doc_string, None
        known.metadata_props.update(output.metadata_props)
        graph.outputs[index] = known
        assert not annotation(output)
