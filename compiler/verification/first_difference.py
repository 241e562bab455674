"""Find the first node at which a graph departs from its reference, by bisection.

Both sides are asked for inner values of the same names. The values are in topological order,
and "some value among the first k differs" can only become true as k grows, so halving the
range that is still in question finds the first one in at most log2(n) runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from leptonc.compiler.export.onnx_export import ExportedGraph
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.verification.comparison import OutputError, compare_arrays
from leptonc.passes.pipeline import LINE_KEY, PASS_KEY
from leptonc.runtime.arrays import Arrays

EXPORTER = "the exporter"

# The reference's inner values by name, for those of the given names that it has.
InnerValues = Callable[[Sequence[str]], Arrays]


@dataclass(frozen=True)
class Difference:
    """The first node whose output is not what the reference computes.

    Attributes:
        node: Its operator, name, inputs and output in words.
        problem: How far its output is off.
        culprit: The pass that last created or changed it, or whoever else did.
        line: The user's line that it came from, or None when unknown.
        plugin: The distribution of that pass, when it is not ours.
    """

    node: str
    problem: str
    culprit: str
    line: str | None = None
    plugin: str | None = None

    def __str__(self) -> str:
        text = f"{self.node}: {self.problem}; last changed by {self.culprit}"
        return f"{text}; from {self.line}" if self.line else text


def first_difference(
    candidate: ir.Model,
    inner_values: InnerValues,
    inputs: Mapping[str, np.ndarray],
    tolerance: Tolerance,
) -> tuple[ir.Node, OutputError] | None:
    """Return the first node of `candidate` whose output differs, with the error, or None.

    Args:
        candidate: The graph under suspicion.
        inner_values: The reference's values by name.
        inputs: Arrays for the graph's inputs.
        tolerance: What counts as a difference.
    """
    producers = {str(value.name): node for node in candidate.graph for value in node.outputs}
    known = inner_values(list(producers))
    names = [name for name in producers if name in known]
    outputs = {str(value.name) for value in candidate.graph.outputs}
    low = 0
    while low < len(names):
        block = names[low : low + max(1, (len(names) - low + 1) // 2)]
        runner = GraphRunner(
            candidate, extra_outputs=[name for name in block if name not in outputs]
        )
        actual = runner(inputs)
        for name in block:
            error = compare_arrays(name, known[name], actual[name], tolerance)
            if error.problem is not None:
                return producers[name], error
        low += len(block)
    return None


def blame(
    found: tuple[ir.Node, OutputError],
    optimised: ir.Model,
    *,
    engine: str | None = None,
    origins: Mapping[str, str] = MappingProxyType({}),
) -> Difference:
    """Say which node it is and who changed it last.

    Args:
        found: What `first_difference` returned.
        optimised: The graph as our passes left it, whose nodes carry the pass names.
        engine: Whose graph `found` is in, when it is not ours; ours was right then.
        origins: The distribution of each pass that is not ours.
    """
    node, error = found
    ours = {str(value.name): each for each in optimised.graph for value in each.outputs}
    origin = ours.get(error.output)
    culprit = EXPORTER
    line, plugin = None, None
    if origin is not None:
        culprit = origin.metadata_props.get(PASS_KEY, EXPORTER)
        line = origin.metadata_props.get(LINE_KEY)
    if culprit in origins:
        plugin = origins[culprit]
        culprit = f"{culprit}, a plugin of {plugin}"
    if engine:
        culprit = f"the build for {engine}, since our own graph is right here"
    if engine is None and origin is not None:
        # The node that was run may only round what this one computes.
        node = origin
    inputs = ", ".join(str(value.name) if value is not None else "-" for value in node.inputs)
    words = f"{node.op_type} node {node.name or '(unnamed)'!r} ({inputs}) -> {error.output}"
    return Difference(words, error.problem or "differs", culprit, line, None if engine else plugin)


def graph_values(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> InnerValues:
    """Return inner values of another graph, run as it stands."""
    produced = {str(value.name) for node in model.graph for value in node.outputs}
    outputs = {str(value.name) for value in model.graph.outputs}

    def values(names: Sequence[str]) -> Arrays:
        shared = [name for name in names if name in produced]
        extra = [name for name in shared if name not in outputs]
        found = GraphRunner(model, extra_outputs=extra)(inputs)
        return {name: found[name] for name in shared}

    return values


def module_values(exported: ExportedGraph, inputs: Mapping[str, np.ndarray]) -> InnerValues:
    """Return inner values of the PyTorch program that the graph was translated from."""
    recorded: Arrays = {}
    if exported.program is not None:
        recorder = _Recorder(exported.program, exported.renamed)
        recorder.run(*_program_inputs(exported.program, inputs))
        recorded = recorder.arrays

    def values(names: Sequence[str]) -> Arrays:
        return {name: recorded[name] for name in names if name in recorded}

    return values


class _Recorder(torch.fx.Interpreter):
    """Runs a program node by node and keeps what each one returns."""

    def __init__(self, program: torch.export.ExportedProgram, renamed: Mapping[str, str]) -> None:
        super().__init__(program.graph_module)
        self._renamed = renamed
        self.arrays: Arrays = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node without gradients and record its value when it is a tensor."""
        with torch.no_grad():
            result = super().run_node(n)
        if n.op == "call_function" and isinstance(result, torch.Tensor):
            name = self._renamed.get(n.name, n.name)
            if result.dtype not in {torch.bfloat16}:
                self.arrays[name] = result.detach().cpu().numpy().copy()
        return result


def _program_inputs(
    program: torch.export.ExportedProgram, inputs: Mapping[str, np.ndarray]
) -> list[Any]:
    """Return weights, constants and user inputs in the order of the program's placeholders."""
    user = iter(inputs.values())
    values: list[Any] = []
    for spec in program.graph_signature.input_specs:
        target = spec.target
        if spec.kind.name == "USER_INPUT":
            values.append(torch.from_numpy(np.array(next(user), copy=True)))
        elif target in program.state_dict:
            values.append(program.state_dict[target])
        else:
            values.append(program.constants[target or ""])
    return values
