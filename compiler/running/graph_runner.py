"""Runs an onnx-ir graph, or what was built of one, on the CPU of the machine that compiles.

A graph as it is written is run without optimiser or fusion: the compiler compares graphs with one
another and with the module, and for that the engine must compute each node as it stands. A graph
that is observed over many samples is optimised first. A payload is run as the runtime will run it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir

from leptonc.backends.base import Payload
from leptonc.compiler.running.engine import engine
from leptonc.compiler.workspace import scratch_folder
from leptonc.runtime.arrays import Arrays

Run = Callable[[Mapping[str, np.ndarray]], Arrays]


class GraphRunner:
    """A graph: named arrays in, named arrays out, in graph order, extra outputs last."""

    def __init__(
        self, model: ir.Model, *, extra_outputs: Sequence[str] = (), optimised: bool = False
    ) -> None:
        """Open a graph.

        Args:
            model: The graph; unchanged afterwards.
            extra_outputs: Names of inner values of the main graph to return as well.
            optimised: Let the engine optimise it for a long run.

        Raises:
            UnsupportedOperatorError: The engine has no kernel for a node.
            EngineError: The engine refuses the graph.
        """
        with _more_outputs(model, extra_outputs):
            self._run: Run = _optimised(model) if optimised else engine.as_written(model)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run the graph; arrays that it does not take are left out.

        Raises:
            EngineError: The engine fails while running.
        """
        return self._run(inputs)


def _optimised(model: ir.Model) -> Run:
    with scratch_folder() as folder:
        return engine.optimised(model, folder)


def payload_runner(payload: Payload) -> Run:
    """Open a payload as the runtime will, before it is in an artifact.

    Raises:
        EngineError: The engine refuses it.
    """
    with scratch_folder() as folder:
        return engine.built(payload, folder)


def node_seconds(payload: Payload, inputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return what each node of the payload's graph takes in one call, in seconds."""
    with scratch_folder() as folder:
        return engine.node_seconds(payload, inputs, folder)


@contextmanager
def _more_outputs(model: ir.Model, names: Sequence[str]) -> Iterator[None]:
    by_name = {value.name: value for node in model.graph for value in node.outputs}
    count = len(model.graph.outputs)
    model.graph.outputs.extend(by_name[name] for name in names)
    try:
        yield
    finally:
        del model.graph.outputs[count:]
