"""A graph on ONNX Runtime that also returns inner values, optimised for a long run.

It goes through a file, because the engine's optimiser does not see weights that lie elsewhere in
memory. The file is gone as soon as the engine has it open.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.backends.ort.backend import DISABLED, INLINE_BYTES
from leptonc.backends.ort.session import CPU, refuse
from leptonc.compiler.workspace import scratch_folder
from leptonc.runtime.arrays import Arrays
from leptonc.runtime.engines.ort.library import engine_failures, import_engine, session_options
from leptonc.runtime.errors import EngineError


class ObservedGraph:
    """A session over a graph with more outputs than it has by itself."""

    def __init__(self, model: ir.Model, extra_outputs: Sequence[str]) -> None:
        """Open a session.

        Args:
            model: The graph; unchanged.
            extra_outputs: Inner values of the main graph to return as well.

        Raises:
            UnsupportedOperatorError: ONNX Runtime has no kernel for a node.
            EngineError: ONNX Runtime refuses the graph.
        """
        engine = import_engine()
        self._failures = engine_failures(engine)
        # By default the engine uses one thread for each physical core only.
        options = session_options(engine, threads=len(os.sched_getaffinity(0)))
        options.graph_optimization_level = engine.GraphOptimizationLevel.ORT_ENABLE_ALL
        with scratch_folder() as folder:
            path = _written(model, extra_outputs, folder)
            try:
                self._session = engine.InferenceSession(
                    str(path),
                    options,
                    providers=[CPU],
                    disabled_optimizers=list(DISABLED),
                    enable_fallback=0,
                )
            except self._failures as error:
                refuse(str(error), model)
        self._inputs = {each.name for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run the graph; the outputs are in graph order, extra ones last.

        Raises:
            EngineError: ONNX Runtime fails while running.
        """
        feed = {name: array for name, array in inputs.items() if name in self._inputs}
        try:
            values: list[Any] = self._session.run(None, feed)
        except self._failures as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
            raise EngineError(
                f"ONNX Runtime failed while running the graph: {error}",
                where=shapes,
                fix="check that the values and sizes are such as the model takes",
            ) from error
        return dict(zip(self._outputs, values, strict=True))


def _written(model: ir.Model, extra_outputs: Sequence[str], folder: Path) -> Path:
    copy = model.clone()
    inner = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.extend(inner[name] for name in extra_outputs)
    values = [
        value
        for graph in copy.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
        and value.const_value.dtype != ir.DataType.STRING
        and value.const_value.nbytes > INLINE_BYTES
    ]
    tensors = [value.const_value for value in values if value.const_value is not None]
    external = ir.external_data.convert_tensors_to_external(tensors, folder, "weights.data")
    for value, tensor in zip(values, external, strict=True):
        value.const_value = tensor
    path = folder / "model.onnx"
    ir.save(copy, path)
    return path
