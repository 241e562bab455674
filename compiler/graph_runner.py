"""Run an onnx-ir graph on ONNX Runtime exactly as it is written: no optimiser, no fusion.

The compiler compares graphs with one another and with the module; for that the engine must
compute each node as it stands. Large weights reach the engine without a copy and without
the graph ever being one protobuf of their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.compiler.arrays import Arrays
from leptonc.compiler.errors import CompileExtraMissingError
from leptonc.runtime.errors import EngineError

INLINE_BYTES = 1 << 10
# A path that cannot exist: the engine must take the weight from memory or fail.
DETACHED = "leptonc-detached-weight"


class GraphRunner:
    """An ONNX Runtime session over a graph, with all graph optimisations off."""

    def __init__(self, model: ir.Model, *, extra_outputs: Sequence[str] = ()) -> None:
        """Open a session.

        Args:
            model: The graph; unchanged afterwards.
            extra_outputs: Names of inner values of the main graph to return as well.

        Raises:
            EngineError: ONNX Runtime refuses the graph.
        """
        options = session_options()
        kept: list[np.ndarray] = []
        with _detached_weights(model, options, kept), _extra_outputs(model, extra_outputs):
            payload = ir.to_proto(model).SerializeToString(deterministic=True)
        self._weights = kept
        self._session = open_session(payload, options)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run the graph; the outputs are in graph order, extra ones last."""
        return run_session(self._session, inputs)


def session_options() -> Any:
    """Return options that leave the graph as it is and keep the engine silent."""
    onnxruntime = require_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return options


def require_onnxruntime() -> Any:
    """Import onnxruntime, or say how to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise CompileExtraMissingError(
            "onnxruntime is not installed", fix="pip install 'leptonc[compile]'"
        ) from error
    return onnxruntime


def open_session(model: str | bytes, options: Any) -> Any:
    """Open a CPU session on a file or on serialised bytes.

    Raises:
        EngineError: ONNX Runtime refuses the graph.
    """
    onnxruntime = require_onnxruntime()
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(
            f"ONNX Runtime cannot load the graph: {error}",
            where=model if isinstance(model, str) else None,
        ) from error


def run_session(session: Any, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Run a session on named arrays.

    Raises:
        EngineError: ONNX Runtime fails while running.
    """
    names = [output.name for output in session.get_outputs()]
    wanted = {each.name for each in session.get_inputs()}
    feed = {name: array for name, array in inputs.items() if name in wanted}
    try:
        values = session.run(None, feed)
    except Exception as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        raise EngineError(
            f"ONNX Runtime failed while running the graph: {error}", where=shapes
        ) from error
    return dict(zip(names, values, strict=True))


@contextmanager
def _detached_weights(model: ir.Model, options: Any, kept: list[np.ndarray]) -> Iterator[None]:
    """While the graph is serialised, let its large weights stay out of it."""
    onnxruntime = require_onnxruntime()
    replaced: list[tuple[ir.Value, ir.TensorProtocol]] = []
    try:
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is None or tensor.nbytes <= INLINE_BYTES or not _numpy_native(tensor):
                continue
            array = np.ascontiguousarray(tensor.numpy())
            kept.append(array)
            options.add_initializer(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
            replaced.append((value, tensor))
            value.const_value = ir.ExternalTensor(
                DETACHED, 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape), name=name
            )
        yield
    finally:
        for value, tensor in replaced:
            value.const_value = tensor


def _numpy_native(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype in {
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
    }


@contextmanager
def _extra_outputs(model: ir.Model, names: Sequence[str]) -> Iterator[None]:
    if not names:
        yield
        return
    by_name = {value.name: value for node in model.graph for value in node.outputs}
    count = len(model.graph.outputs)
    model.graph.outputs.extend(by_name[name] for name in names)
    try:
        yield
    finally:
        del model.graph.outputs[count:]
