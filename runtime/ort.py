"""Runs a graph on ONNX Runtime's CPU engine; the only module that imports onnxruntime."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from leptonc.runtime.artifact import Artifact
from leptonc.runtime.errors import EngineError, EngineMissingError
from leptonc.runtime.inputs import Array, Arrays
from leptonc.runtime.manifest import Variant
from leptonc.runtime.ort_weights import (
    SharedWeight,
    give_arrays,
    give_file,
    mapped_weights,
    share_weight,
)

__all__ = [
    "OrtEngine",
    "SharedWeight",
    "check_version",
    "engine_failures",
    "import_engine",
    "open_session",
    "session_options",
    "share_weight",
]

_SILENT = 4
_RELEASE_EVERY_S = 0.02


def import_engine() -> Any:
    """Return the onnxruntime module.

    Raises:
        EngineMissingError: It is not installed, or cannot be imported.
    """
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


class OrtEngine:
    """An ONNX Runtime session over a variant of an artifact."""

    def __init__(
        self,
        engine: Any,
        artifact: Artifact,
        variant: Variant,
        *,
        threads: int | None,
        spinning: bool,
    ) -> None:
        """Hand the graph and its weights to ONNX Runtime.

        Raises:
            EngineError: ONNX Runtime refuses the graph.
        """
        options = session_options(engine, threads=threads, spinning=spinning)
        layout = variant.options.get("optimize") == "layout"
        weights = {} if layout else mapped_weights(engine, artifact, variant)
        declared, kept = give_file(options, artifact, variant) if layout else (b"", None)
        graph = bytes(artifact.view(variant.graph)) + declared
        self._failures = engine_failures(engine)
        try:
            with _releasing_pages(artifact):
                self._session = open_session(engine, graph, weights, options, variant.options)
        except self._failures as error:
            raise EngineError(
                f"ONNX Runtime cannot load the graph: {_first_line(error)}",
                where=f"{artifact.path}, variant {variant.name!r}",
                fix="compile the model again with this version of onnxruntime",
            ) from error
        # After the session, so that the session dies before the memory that it reads.
        self._weights = weights, kept
        if layout:
            artifact.check_not_replaced()
        self._share = engine.OrtValue.ortvalue_from_numpy
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> Arrays:
        """Run once; safe to call from many threads.

        Raises:
            EngineError: ONNX Runtime fails; the message is its own.
        """
        try:
            values = self._session.run(None, inputs)
        except self._failures as error:
            raise _failed(error, inputs) from error
        return dict(zip(self._outputs, values, strict=True))

    def bind(self, inputs: Arrays, outputs: Arrays) -> Any:
        """Return an opaque binding of these arrays, by pointer, for `run_bound`."""
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, self._share(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, self._share(array))
        return binding

    def run_bound(self, binding: Any, inputs: Arrays) -> None:
        """Run once on bound arrays: no copies, no allocation for inputs and outputs.

        Raises:
            EngineError: ONNX Runtime fails; the message is its own.
        """
        try:
            self._session.run_with_iobinding(binding)
        except self._failures as error:
            raise _failed(error, inputs) from error


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


@contextmanager
def _releasing_pages(artifact: Artifact) -> Iterator[None]:
    """Keep the mapped weights from counting as memory while the engine packs them.

    ONNX Runtime reads each matrix once, into its own packed copy. The pages read stay in the
    page cache; without this, they would also stay in this process, next to the copy.
    """
    done = threading.Event()

    def release() -> None:
        while not done.wait(_RELEASE_EVERY_S):
            artifact.release_pages()

    thread = threading.Thread(target=release, name="leptonc-release", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        artifact.release_pages()


def engine_failures(engine: Any) -> tuple[type[BaseException], ...]:
    """Return every exception that the engine's binding raises."""
    state = vars(engine.capi.onnxruntime_pybind11_state)
    own = [value for value in state.values() if isinstance(value, type)]
    errors = [value for value in own if issubclass(value, Exception)]
    return (*errors, RuntimeError, ValueError, TypeError)


def _failed(error: BaseException, inputs: Mapping[str, Array]) -> EngineError:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
    return EngineError(
        f"ONNX Runtime failed while running the graph: {_first_line(error)}",
        where=f"inputs {shapes}" if shapes else None,
        fix="check that the sizes belong together; compile again to verify the artifact",
    )


def _first_line(error: BaseException) -> str:
    lines: Sequence[str] = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
