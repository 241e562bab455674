"""Runs graphs on ONNX Runtime's CPU while compiling: as written, optimised, or as a payload.

Weights of a graph as written reach the engine without a copy. An optimised graph goes through a
file, because the engine's optimiser does not see weights that lie elsewhere in memory; the file
may go as soon as the engine has it open.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.backends.base import INLINE_BYTES, Payload
from leptonc.backends.ort.backend import DISABLED
from leptonc.backends.ort.session import CPU, refuse
from leptonc.backends.saved_graph import saved
from leptonc.runtime.arrays import Arrays
from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.engines.ort.library import (
    engine_failures,
    import_engine,
    open_session,
    session_options,
)
from leptonc.runtime.engines.ort.weights import SharedWeight, share_weight
from leptonc.runtime.errors import EngineError, UnsupportedError

# Runs before the first that counts: the engine packs weights in the first, plans memory in others.
WARM_UP_RUNS = 3
TIMED_RUNS = 10
AS_WRITTEN = {"optimize": "none"}
OPTIMISED = {"optimize": "layout", "disabled_optimizers": ",".join(DISABLED)}
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


class RunningGraph:
    """A session: named arrays in, named arrays out, in the order of the graph's outputs."""

    def __init__(self, session: Any, *, weights: object = None, fix: str | None = None) -> None:
        """Keep a session.

        Args:
            session: Of ONNX Runtime.
            weights: What it keeps pointers into: they live as long as the session.
            fix: What to do when a run fails.
        """
        self.session = session
        self._weights = weights
        self._fix = fix
        self._inputs = {each.name for each in session.get_inputs()}
        self._outputs = [each.name for each in session.get_outputs()]
        self._failures = engine_failures(import_engine())

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run it; arrays that it does not take are left out.

        Raises:
            EngineError: ONNX Runtime fails while running.
        """
        feed = {name: array for name, array in inputs.items() if name in self._inputs}
        try:
            values = self.session.run(None, feed)
        except self._failures as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
            raise EngineError(
                f"ONNX Runtime failed while running the graph: {error}",
                where=shapes,
                fix=self._fix,
            ) from error
        return dict(zip(self._outputs, values, strict=True))


def as_written(model: ir.Model) -> RunningGraph:
    """Open a graph with every optimisation of the engine off.

    Raises:
        UnsupportedOperatorError: ONNX Runtime has no kernel for a node.
        EngineError: ONNX Runtime refuses the graph.
    """
    engine = import_engine()
    with _detached_weights(engine, model) as weights:
        graph = ir.to_proto(model).SerializeToString(deterministic=True)
    options = session_options(engine)
    # A graph is run a few times at most here: packing its weights would not pay.
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        session = open_session(engine, graph, weights, options, AS_WRITTEN)
    except engine_failures(engine) as error:
        refuse(str(error), model)
    return RunningGraph(session, weights=weights)


def file_as_written(path: Path, model: ir.Model) -> RunningGraph:
    """Open an .onnx file with every optimisation of the engine off.

    Args:
        path: The file, with external data beside it.
        model: The same graph, to name nodes in errors.

    Raises:
        UnsupportedError: The file is of a later ONNX than the engine knows.
        UnsupportedOperatorError: ONNX Runtime has no kernel for a node.
        EngineError: ONNX Runtime refuses the graph.
    """
    engine = import_engine()
    options = session_options(engine)
    options.graph_optimization_level = engine.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Packing would copy every weight of a file that is otherwise only mapped.
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return RunningGraph(engine.InferenceSession(str(path), options, providers=[CPU]))
    except engine_failures(engine) as error:
        _refuse_newer(str(error), path, engine.__version__)
        try:
            refuse(str(error), model)
        except EngineError as refusal:
            refusal.where = refusal.where or str(path)
            raise


def optimised(model: ir.Model, folder: Path) -> RunningGraph:
    """Open a copy of a graph through files in `folder`, optimised for a long run.

    Raises:
        UnsupportedOperatorError: ONNX Runtime has no kernel for a node.
        EngineError: ONNX Runtime refuses the graph.
    """
    engine = import_engine()
    # By default the engine uses one thread for each physical core only.
    options = session_options(engine, threads=len(os.sched_getaffinity(0)))
    try:
        session = _through_file(model.clone(), folder, options, OPTIMISED)
    except engine_failures(engine) as error:
        refuse(str(error), model)
    fix = "check that the values and sizes are such as the model takes"
    return RunningGraph(session, fix=fix)


def built(payload: Payload, folder: Path, *, profile: Path | None = None) -> RunningGraph:
    """Open a payload through files in `folder`, with the options that its variant asks for.

    Args:
        payload: Built for ONNX Runtime on this machine.
        folder: For files.
        profile: The beginning of the name of a profile to write, or None to write none.

    Raises:
        EngineError: ONNX Runtime refuses the graph.
    """
    engine = import_engine()
    options = session_options(engine)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        session = _through_file(payload.model(), folder, options, payload.variant["options"])
    except engine_failures(engine) as error:
        raise EngineError(
            f"ONNX Runtime refuses what was built: {error}",
            fix="please report this with the model",
        ) from error
    return RunningGraph(session)


def node_seconds(
    payload: Payload, inputs: Mapping[str, np.ndarray], folder: Path
) -> dict[str, float]:
    """Return what each node of the payload's graph takes, in seconds, as the engine reports it.

    Args:
        payload: What to run.
        inputs: One call.
        folder: For files.

    Returns:
        By node name the median over `TIMED_RUNS` runs.
    """
    run = built(payload, folder, profile=folder / "profile")
    for _ in range(WARM_UP_RUNS + TIMED_RUNS):
        run(inputs)
    events = json.loads(Path(run.session.end_profiling()).read_text(encoding="utf-8"))
    found: defaultdict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            found[name.removesuffix("_kernel_time")].append(float(event["dur"]) * 1e-6)
    return {name: median(times[WARM_UP_RUNS:] or times) for name, times in sorted(found.items())}


def _through_file(model: ir.Model, folder: Path, options: Any, settings: Mapping[str, str]) -> Any:
    engine = import_engine()
    levels = engine.GraphOptimizationLevel
    layout = settings.get("optimize") == "layout"
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if layout else levels.ORT_DISABLE_ALL
    with saved(model, folder) as path:
        return engine.InferenceSession(
            str(path),
            options,
            providers=[CPU],
            disabled_optimizers=[
                name for name in settings.get("disabled_optimizers", "").split(",") if name
            ],
            enable_fallback=0,
        )


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
