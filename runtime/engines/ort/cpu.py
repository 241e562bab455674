"""Runs a variant of an artifact on ONNX Runtime: soon, and then fast.

ONNX Runtime computes fastest on weights that it has copied into the order in which its kernels
read them. For a large model that copying takes longer than everything else in a load. So a
large model is opened twice: first on the weights as they lie in the mapped file, which takes
milliseconds, and, from the second run on, again in full in the background. Runs move over to
the full session when it is ready; what the first one read goes back to the page cache.

Both compute the same graph. Their sums may be taken in another order, so that an answer before
the move and one after it may differ in the last bits.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import Artifact
from leptonc.runtime.engines.ort.library import (
    engine_failures,
    no_asynchronous_runs,
    no_device_arrays,
    open_session,
    session_options,
)
from leptonc.runtime.engines.ort.weights import give_file, mapped_weights
from leptonc.runtime.errors import EngineError, LeptonError
from leptonc.runtime.inputs import Array, Arrays

# Below this, opening in full takes a few hundredths of a second at most.
SMALL_BYTES = 32 << 20
_RELEASE_EVERY_S = 0.02


@dataclass(frozen=True)
class _Opened:
    """A session of the engine, and the memory that it reads, which must outlive it.

    Attributes:
        session: The engine's own.
        run: Runs it, given output names, arrays by name and None. The engine's public method
            checks again what our signature has checked, which small models would feel.
        kept: The memory.
    """

    session: Any
    run: Callable[[Sequence[str], Mapping[str, Array], None], Sequence[Any]]
    kept: object


def _opened(session: Any, kept: object) -> _Opened:
    inner = getattr(session, "_sess", session)
    return _Opened(session, inner.run, kept)


class OrtEngine:
    """ONNX Runtime over a variant of an artifact."""

    def __init__(
        self,
        engine: Any,
        artifact: Artifact,
        variant: Variant,
        *,
        threads: int | None,
        spinning: bool,
        eager: bool = True,
    ) -> None:
        """Hand the graph and its weights to ONNX Runtime.

        Args:
            engine: The onnxruntime module.
            artifact: Open, and verified if it is to be.
            variant: One of its variants for this engine.
            threads: Threads within an operator, None for one for each core.
            spinning: Whether idle threads spin.
            eager: Open a large model in full at once.

        Raises:
            EngineError: ONNX Runtime refuses the graph.
        """
        self._engine = engine
        self._artifact = artifact
        self._variant = variant
        self._threads = threads
        self._spinning = spinning
        self._failures = engine_failures(engine)
        self._lock = threading.Lock()
        self._answered = False
        self._finishing: threading.Thread | None = None
        self._problem: LeptonError | None = None
        small = sum(weight.length for weight in variant.weights) <= SMALL_BYTES
        self._full = eager or small
        self._current = self._open(full=self._full)
        self._outputs = [output.name for output in self._current.session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """Run once; safe to call from many threads.

        Raises:
            EngineError: ONNX Runtime fails; the message is its own.
        """
        if not self._full:
            return self._run_early(inputs)
        try:
            values = self._current.run(self._outputs, inputs, None)
        except self._failures as error:
            raise _failed(error, inputs) from error
        return dict(zip(self._outputs, values, strict=False))

    def _run_early(self, inputs: Mapping[str, Array]) -> Arrays:
        """Run on the weights as they lie in the file, while there is nothing better.

        The first run reads each weight once, in order, and gives its pages back behind it, so
        that a process that has answered once does not count the whole file as its memory.
        """
        if self._answered:
            self._start_finishing()
        behind = nullcontext() if self._answered else _releasing_pages(self._artifact)
        opened = self._current
        try:
            with behind:
                values = opened.run(self._outputs, inputs, None)
        except self._failures as error:
            raise _failed(error, inputs) from error
        self._answered = True
        return dict(zip(self._outputs, values, strict=False))

    def start(self, inputs: Mapping[str, Array]) -> NoReturn:
        """Refuse: every run is waited for."""
        del inputs
        raise no_asynchronous_runs(self._variant, self._artifact.path)

    def finish(self) -> None:
        """Return when runs go at full speed.

        Raises:
            EngineError: ONNX Runtime could not open the graph in full; runs go on without.
        """
        if not self._full:
            self._start_finishing().join()
        if self._problem is not None:
            raise self._problem

    def bind(self, inputs: Arrays, outputs: Arrays) -> Any:
        """Return an opaque binding of these arrays, by pointer, for `run_bound`."""
        self.finish()
        opened = self._current
        binding = opened.session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, self._engine.OrtValue.ortvalue_from_numpy(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, self._engine.OrtValue.ortvalue_from_numpy(array))
        return opened, binding

    def run_bound(self, bound: Any, inputs: Arrays) -> None:
        """Run once on bound arrays: no copies, no allocation for inputs and outputs.

        Raises:
            EngineError: ONNX Runtime fails; the message is its own.
        """
        opened, binding = bound
        try:
            opened.session.run_with_iobinding(binding)
        except self._failures as error:
            raise _failed(error, inputs) from error

    def on_gpu(self) -> NoReturn:
        """Refuse: it runs on the CPU."""
        raise no_device_arrays(self._variant, self._artifact.path)

    def close(self) -> None:
        """Do nothing: memory and mapping are let go of with the last run that refers to them."""

    def _start_finishing(self) -> threading.Thread:
        with self._lock:
            if self._finishing is None:
                self._finishing = threading.Thread(target=self._finish, name="leptonc-finish")
                self._finishing.start()
            return self._finishing

    def _finish(self) -> None:
        try:
            self._current = self._open(full=True)
        except LeptonError as error:
            self._problem = error
            warnings.warn(f"the model runs slower than it could: {error}", stacklevel=1)
        self._full = True
        self._artifact.release_pages()

    def _open(self, *, full: bool) -> _Opened:
        options = session_options(self._engine, threads=self._threads, spinning=self._spinning)
        graph = bytes(self._artifact.view(self._variant.graph))
        settings: Mapping[str, str] = self._variant.options if full else {}
        try:
            if not full:
                options.add_session_config_entry("session.disable_prepacking", "1")
                return self._open_in_place(graph, options, settings)
            with _releasing_pages(self._artifact):
                if settings.get("optimize") == "layout":
                    return self._open_by_name(graph, options, settings)
                return self._open_in_place(graph, options, settings)
        except self._failures as error:
            raise EngineError(
                f"ONNX Runtime cannot load the graph: {_first_line(error)}",
                where=f"{self._artifact.path}, variant {self._variant.name!r}",
                fix="compile the model again with this version of onnxruntime",
            ) from error

    def _open_in_place(self, graph: bytes, options: Any, settings: Mapping[str, str]) -> _Opened:
        weights = mapped_weights(self._engine, self._artifact, self._variant)
        return _opened(open_session(self._engine, graph, weights, options, settings), weights)

    def _open_by_name(self, graph: bytes, options: Any, settings: Mapping[str, str]) -> _Opened:
        declared, kept = give_file(options, self._artifact, self._variant)
        session = open_session(self._engine, graph + declared, {}, options, settings)
        self._artifact.check_not_replaced()
        return _opened(session, kept)


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
