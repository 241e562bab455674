"""Runs a payload as the runtime will, before it is in an artifact, and times its nodes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.backends.base import Payload
from leptonc.backends.ort.session import CPU
from leptonc.compiler.running.graph_runner import run_session
from leptonc.compiler.workspace import scratch_folder
from leptonc.runtime.arrays import Arrays
from leptonc.runtime.engines.ort.library import engine_failures, import_engine, session_options
from leptonc.runtime.errors import EngineError

# Runs before the first that counts: the engine packs weights in the first, plans memory in others.
WARM_UP_RUNS = 3
TIMED_RUNS = 10


class PayloadRunner:
    """A session over a payload, with the options that its variant asks for."""

    def __init__(self, payload: Payload, *, profile: Path | None = None) -> None:
        """Open a session.

        Args:
            payload: Built for ONNX Runtime on this machine.
            profile: The beginning of the name of a profile to write, or None to write none.

        Raises:
            EngineError: ONNX Runtime refuses the graph.
        """
        engine = import_engine()
        options = session_options(engine)
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        wanted: Mapping[str, str] = payload.variant["options"]
        levels = engine.GraphOptimizationLevel
        layout = wanted.get("optimize") == "layout"
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if layout else levels.ORT_DISABLE_ALL
        )
        disabled = [name for name in wanted.get("disabled_optimizers", "").split(",") if name]
        with scratch_folder() as folder:
            # Through a file: the engine's optimiser does not see weights elsewhere in memory.
            path = folder / "model.onnx"
            ir.save(payload.model(), path, external_data="weights.data")
            try:
                self.session: Any = engine.InferenceSession(
                    str(path),
                    options,
                    providers=[CPU],
                    disabled_optimizers=disabled,
                    enable_fallback=0,
                )
            except engine_failures(engine) as error:
                raise EngineError(
                    f"ONNX Runtime refuses what was built: {error}",
                    fix="please report this with the model",
                ) from error

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Return the outputs by name, in graph order.

        Raises:
            EngineError: ONNX Runtime fails while running.
        """
        return run_session(self.session, inputs)


def node_seconds(payload: Payload, inputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return what each node of the payload's graph takes, in seconds, as the engine reports it.

    Args:
        payload: What to run.
        inputs: One call.

    Returns:
        By node name the median over `TIMED_RUNS` runs.
    """
    with scratch_folder() as folder:
        runner = PayloadRunner(payload, profile=folder / "profile")
        for _ in range(WARM_UP_RUNS + TIMED_RUNS):
            runner(inputs)
        events = json.loads(Path(runner.session.end_profiling()).read_text(encoding="utf-8"))
    found: defaultdict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            found[name.removesuffix("_kernel_time")].append(float(event["dur"]) * 1e-6)
    return {name: median(times[WARM_UP_RUNS:] or times) for name, times in sorted(found.items())}
