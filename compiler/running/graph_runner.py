"""Run an onnx-ir graph on ONNX Runtime exactly as it is written: no optimiser, no fusion.

The compiler compares graphs with one another and with the module; for that the engine must
compute each node as it stands. Large weights reach the engine without a copy and without
the graph ever being one protobuf of their size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.backends.ort.session import refuse
from leptonc.runtime.arrays import Arrays
from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.engines.ort.library import (
    SharedWeight,
    engine_failures,
    import_engine,
    open_session,
    session_options,
    share_weight,
)
from leptonc.runtime.errors import EngineError, UnsupportedError

INLINE_BYTES = 1 << 10
AS_WRITTEN = {"optimize": "none"}
# How ONNX Runtime words that a file is too new: the version found, and the last that it knows.
_NEWER = (
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        "ONNX IR version",
        "model = onnx.load(path); model.ir_version = {limit}; onnx.save(model, path)",
    ),
    (
        r"(?s)Opset (\d+) is under development.*till opset (\d+)",
        "ONNX opset",
        "export it at opset {limit}, or try onnx.version_converter.convert_version(model, {limit})",
    ),
)
_ELEMENT_NAMES = {element.onnx: name for name, element in ELEMENT_TYPES.items()}


class GraphRunner:
    """An ONNX Runtime session over a graph, with all graph optimisations off."""

    def __init__(self, model: ir.Model, *, extra_outputs: Sequence[str] = ()) -> None:
        """Open a session.

        Args:
            model: The graph; unchanged afterwards.
            extra_outputs: Names of inner values of the main graph to return as well.

        Raises:
            UnsupportedOperatorError: ONNX Runtime has no kernel for a node.
            EngineError: ONNX Runtime refuses the graph.
        """
        engine = import_engine()
        with _detached_weights(engine, model) as weights, _more_outputs(model, extra_outputs):
            graph = ir.to_proto(model).SerializeToString(deterministic=True)
        # The engine keeps pointers into the weights, so they live as long as the session.
        self._weights = weights
        options = session_options(engine)
        # A graph is run a few times at most here: packing its weights would not pay.
        options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            self._session = open_session(engine, graph, weights, options, AS_WRITTEN)
        except engine_failures(engine) as error:
            refuse(str(error), model)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run the graph; the outputs are in graph order, extra ones last.

        Raises:
            EngineError: ONNX Runtime fails while running.
        """
        return run_session(self._session, inputs)


def open_file(path: Path, model: ir.Model) -> Any:
    """Open a session on an .onnx file as it is written.

    Args:
        path: The file, with external data beside it.
        model: The same graph, to name nodes in errors.

    Raises:
        UnsupportedOperatorError: ONNX Runtime has no kernel for a node.
        EngineError: ONNX Runtime refuses the graph.
    """
    engine = import_engine()
    options = session_options(engine)
    options.graph_optimization_level = engine.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Packing would copy every weight of a file that is otherwise only mapped.
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return engine.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except engine_failures(engine) as error:
        _refuse_newer(str(error), path, engine.__version__)
        try:
            refuse(str(error), model)
        except EngineError as refusal:
            refusal.where = refusal.where or str(path)
            raise


def _refuse_newer(message: str, path: Path, version: str) -> None:
    """Raise UnsupportedError when the file is of a later ONNX than the engine knows."""
    for pattern, kind, change in _NEWER:
        match = re.search(pattern, message)
        if match:
            raise UnsupportedError(
                f"the file is of {kind} {match[1]}, and onnxruntime {version} reads at most "
                f"{match[2]}",
                where=str(path),
                fix=change.format(limit=match[2]),
            )


def run_session(session: Any, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Run a session on named arrays; arrays that it does not take are left out.

    Raises:
        EngineError: ONNX Runtime fails while running.
    """
    names = [output.name for output in session.get_outputs()]
    wanted = {each.name for each in session.get_inputs()}
    feed = {name: array for name, array in inputs.items() if name in wanted}
    try:
        values = session.run(None, feed)
    except engine_failures(import_engine()) as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        raise EngineError(
            f"ONNX Runtime failed while running the graph: {error}", where=shapes
        ) from error
    return dict(zip(names, values, strict=True))


@contextmanager
def _detached_weights(engine: Any, model: ir.Model) -> Iterator[dict[str, SharedWeight]]:
    """Take large weights out of the graph while it is serialised, and put them back."""
    initializers = model.graph.initializers
    everything = list(initializers.items())
    weights: dict[str, SharedWeight] = {}
    outputs = {id(value) for value in model.graph.outputs}
    for name, value in everything:
        tensor = value.const_value
        dtype = _ELEMENT_NAMES.get(int(tensor.dtype)) if tensor is not None else None
        if tensor is None or dtype in {None, "str"} or id(value) in outputs:
            continue
        if tensor.nbytes <= INLINE_BYTES:
            continue
        array = np.array(tensor.numpy(), order="C", copy=None).view(ELEMENT_TYPES[dtype].storage)
        weights[name] = share_weight(engine, dtype, array)
        del initializers[name]
    try:
        yield weights
    finally:
        initializers.clear()
        initializers.update(everything)


@contextmanager
def _more_outputs(model: ir.Model, names: Sequence[str]) -> Iterator[None]:
    by_name = {value.name: value for node in model.graph for value in node.outputs}
    count = len(model.graph.outputs)
    model.graph.outputs.extend(by_name[name] for name in names)
    try:
        yield
    finally:
        del model.graph.outputs[count:]
