"""From a file to answers: `load` and `Session`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import Artifact, open_artifact
from leptonc.runtime.artifact.signature import Signature
from leptonc.runtime.binding import Binding
from leptonc.runtime.errors import InputError, LeptonError, UnsupportedError
from leptonc.runtime.inputs import Array, Arrays, InputGate

if TYPE_CHECKING:
    from leptonc.runtime.cuda.binding import DeviceBinding
    from leptonc.runtime.engines.base import Engine, Pending


class Session:
    """A loaded model; made by `load`.

    Safe to call from many threads at once. Use it as a context manager, or let it go.

    Attributes:
        signature: What it takes and gives.
        variant: The name of the payload that was chosen, e.g. "ort-cpu".
        digest: Stands for the whole file: SHA-256 of the header, which has all other hashes.
        manifest: Everything the compiler recorded, as plain JSON values; treat as read-only.
    """

    def __init__(self, artifact: Artifact, variant: Variant, engine: Engine) -> None:
        self.path = artifact.path
        self.digest: str = artifact.digest
        self.signature: Signature = artifact.manifest.signature
        self.variant: str = variant.name
        self.manifest: Mapping[str, Any] = artifact.manifest.raw
        self._engine: Engine | None = engine
        self._gate = InputGate(self.signature)

    def __call__(self, /, **inputs: Array) -> Arrays:
        """Run on arrays given by keyword; see `run`."""
        engine = self._engine or self._open_engine()
        return engine.run(self._gate.check(inputs))

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """Run on arrays by name; returns new arrays by output name.

        Arrays that are not contiguous are copied first. Text travels in object arrays of str.

        Raises:
            InputError: A missing or unknown name, a wrong dtype, rank, size or byte order.
            EngineError: The engine failed.
        """
        engine = self._engine or self._open_engine()
        return engine.run(self._gate.check(inputs))

    def run_async(self, inputs: Mapping[str, Array]) -> Pending:
        """Start a run and return; `result()` of what is returned waits for the outputs.

        The inputs are copied: they may be overwritten at once. TensorRT variants only.

        Raises:
            InputError: As for `run`; or no optimisation profile takes the shapes.
            UnsupportedError: The variant runs on another engine.
            EngineError: The engine failed.
        """
        return self._open_engine().start(self._gate.check(inputs))

    def warm_up(self) -> None:
        """Return when the session runs at full speed (see `load`, "eager").

        Raises:
            EngineError: The engine could not prepare; runs go on as they are.
        """
        self._open_engine().finish()

    def bind(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None
    ) -> Binding | DeviceBinding:
        """Bind arrays for runs without copies or allocation; warms the session up.

        Args:
            inputs: Contiguous arrays, one for each input; later runs read them again. For a
                TensorRT variant also arrays on the GPU that speak DLPack: of torch, of CuPy.
            outputs: Arrays to be filled; those not given are allocated once, here.

        Raises:
            InputError: As for `run`, and for arrays that cannot be bound.
            UnsupportedError: An array lies on a GPU and the variant runs elsewhere.
        """
        outputs = outputs or {}
        if all(isinstance(value, np.ndarray) for value in (*inputs.values(), *outputs.values())):
            return Binding(self._open_engine(), self.signature, inputs, outputs)
        from leptonc.runtime.cuda.binding import DeviceBinding, on_device

        if not any(map(on_device, (*inputs.values(), *outputs.values()))):
            return Binding(self._open_engine(), self.signature, inputs, outputs)
        return DeviceBinding(self._open_engine().on_gpu(), self.signature, inputs, outputs)

    def close(self) -> None:
        """Let go of the engine and of the mapped file; runs in progress finish first."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session({self.path!r}, variant={self.variant!r}, {self.signature})"

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise InputError(
                "the session is closed", where=self.path, fix="load the artifact again"
            )
        return self._engine


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    variant: str | None = None,
    threads: int | None = None,
    verify: bool = True,
    spinning: bool = True,
    eager: bool = False,
    cuda_graphs: bool = False,
    runtime_cache: str | os.PathLike[str] | bool = True,
) -> Session:
    """Load an artifact.

    Args:
        path: A `.lepton` file.
        device: Where to run: "cpu", "gpu", or "auto" for the GPU if the artifact and the machine
            can, and else the CPU; `Session.variant` and a warning in the log "leptonc.runtime"
            say that. Without "auto" an engine that does not work is never replaced by another.
        variant: The name of the variant to use, instead of the first that suits the device.
        threads: Threads within one operator; None lets the engine take one for each core.
        verify: Check every hash before any byte reaches the engine. Without it only the
            structure and the manifest are checked: for files that were verified before. A
            TensorRT plan is native code: its own hash is checked always.
        spinning: Let idle threads spin: faster on a quiet machine, slower on a crowded one.
        eager: Prepare a large model fully before returning. Otherwise it answers from the
            mapped file at first, and from the second run on is prepared for full speed in the
            background; answers before and after may differ in the last bits.
        cuda_graphs: On a GPU, record the kernels of a bound run once and replay them.
        runtime_cache: Where TensorRT-RTX keeps the kernels that it compiles on this machine, for
            the next start: a file or a folder, True for beside the artifact, False for nowhere.
            A place that cannot be written is no error.

    Raises:
        ArtifactError: The file is not a valid artifact.
        IntegrityError: Its bytes are not those that were written.
        UnsupportedError: It has nothing for this device.
        EnvironmentProblem: The engine, or the machine, is not what it demands.
        EngineError: The engine refuses the graph.
    """
    # Everything about engines is imported here, and not by those who catch errors or read types.
    from leptonc.runtime.engines.load_options import LoadOptions
    from leptonc.runtime.engines.loaders import DEMANDS
    from leptonc.runtime.loading import open_first
    from leptonc.runtime.variant_choice import candidates

    _check_arguments(device, threads, cuda_graphs=cuda_graphs)
    options = LoadOptions(threads, spinning, eager, cuda_graphs, runtime_cache)
    artifact = open_artifact(path, DEMANDS)
    try:
        usable = candidates(artifact.manifest.variants, device, variant, artifact.path)
        chosen, engine = open_first(artifact, usable, options, verify=verify)
    except LeptonError:
        artifact.close()
        raise
    return Session(artifact, chosen, engine)


def _check_arguments(device: str, threads: int | None, *, cuda_graphs: bool) -> None:
    from leptonc.runtime.variant_choice import DEVICES

    if device not in DEVICES:
        raise UnsupportedError(
            f"there is no device {device!r} in this build", fix='load(path, device="cpu")'
        )
    if cuda_graphs and device == "cpu":
        raise UnsupportedError(
            "CUDA graphs are recorded on a GPU only", fix='load(path, device="gpu")'
        )
    if threads is not None and (type(threads) is not int or threads < 1):
        raise InputError(
            f"threads={threads!r} is not a positive integer",
            fix="give the number of threads, or None for one for each core",
        )
