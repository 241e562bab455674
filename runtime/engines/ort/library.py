"""Opens graphs on ONNX Runtime's CPU engine; the only module that imports onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.engines.ort.weights import SharedWeight, give_arrays, share_weight
from leptonc.runtime.errors import EngineMissingError, UnsupportedError

__all__ = [
    "SharedWeight",
    "check_version",
    "engine_failures",
    "import_engine",
    "no_asynchronous_runs",
    "no_device_arrays",
    "open_session",
    "session_options",
    "share_weight",
]

_SILENT = 4


def import_engine() -> Any:
    """Return the onnxruntime module, with its telemetry off unless the user set it.

    Raises:
        EngineMissingError: It is not installed, or cannot be imported.
    """
    # Importing it opens a telemetry session, with a file in TMPDIR, unless told not to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime"
        raise EngineMissingError(
            "onnxruntime is not installed"
            if missing
            else f"onnxruntime cannot be imported: {error}",
            fix="pip install 'leptonc[ort]'",
        ) from error
    return onnxruntime


def check_version(engine: Any, variant: Variant, where: str) -> None:
    """Refuse an engine older than the one the variant was built for.

    Raises:
        EngineMissingError: The installed version is too old.
    """
    installed = tuple(int(part) for part in engine.__version__.split(".") if part.isdecimal())
    if installed < variant.demands.engine_min:
        needed = ".".join(map(str, variant.demands.engine_min))
        raise EngineMissingError(
            f"onnxruntime {engine.__version__} is installed; the artifact needs {needed} or later",
            where=where,
            fix=f"pip install 'onnxruntime>={needed}'",
        )


def session_options(engine: Any, *, threads: int | None = None, spinning: bool = True) -> Any:
    """Return options of the engine for a session that prints nothing."""
    options = engine.SessionOptions()
    options.log_severity_level = _SILENT
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return options


def open_session(
    engine: Any,
    graph: bytes,
    weights: Mapping[str, SharedWeight],
    options: Any,
    settings: Mapping[str, str],
) -> Any:
    """Open a session on a graph whose large weights lie elsewhere in memory.

    Args:
        engine: The onnxruntime module.
        graph: A `ModelProto` that uses `weights` without declaring them.
        weights: By name; they must outlive the session.
        options: From `session_options`.
        settings: The variant's options: "optimize" ("none", or "layout" to rearrange
            convolutions for this machine) and "disabled_optimizers" (names, with commas).

    Raises:
        Exception: One of `engine_failures`.
    """
    levels = engine.GraphOptimizationLevel
    layout = settings.get("optimize") == "layout"
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if layout else levels.ORT_DISABLE_ALL
    disabled = [name for name in settings.get("disabled_optimizers", "").split(",") if name]
    declared = give_arrays(engine, options, weights) if weights else b""
    return engine.InferenceSession(
        graph + declared,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=disabled,
        enable_fallback=0,
    )


def engine_failures(engine: Any) -> tuple[type[BaseException], ...]:
    """Return every exception that the engine's binding raises."""
    state = vars(engine.capi.onnxruntime_pybind11_state)
    own = [value for value in state.values() if isinstance(value, type)]
    errors = [value for value in own if issubclass(value, Exception)]
    return (*errors, RuntimeError, ValueError, TypeError)


def no_asynchronous_runs(variant: Variant, where: str) -> UnsupportedError:
    """Return the error for a run that is to be started only."""
    return UnsupportedError(
        f"the variant {variant.name!r} has no asynchronous runs",
        where=where,
        fix="call run() on a thread, or load a TensorRT variant",
    )


def no_device_arrays(variant: Variant, where: str) -> UnsupportedError:
    """Return the error for arrays of other libraries on a GPU."""
    return UnsupportedError(
        f"the variant {variant.name!r} takes no arrays that lie on a GPU",
        where=where,
        fix="bind NumPy arrays, or load a TensorRT variant",
    )
