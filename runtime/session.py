"""From a file to answers: `load` and `Session`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from leptonc.runtime import ort
from leptonc.runtime.artifact import Artifact, Verification, available_threads, open_artifact
from leptonc.runtime.binding import Binding
from leptonc.runtime.errors import InputError, LeptonError, UnsupportedError
from leptonc.runtime.inputs import Array, Arrays, InputGate
from leptonc.runtime.machine import check_instructions
from leptonc.runtime.manifest import Variant
from leptonc.runtime.ort_cuda_engine import CudaEngine
from leptonc.runtime.ort_engine import OrtEngine
from leptonc.runtime.signature import Signature

_Engine = OrtEngine | CudaEngine
DEVICES = ("cpu", "gpu")


class Session:
    """A loaded model; made by `load`.

    Safe to call from many threads at once. Use it as a context manager, or let it go.

    Attributes:
        signature: What it takes and gives.
        variant: The name of the payload that was chosen, e.g. "ort-cpu".
        manifest: Everything the compiler recorded, as plain JSON values; treat as read-only.
    """

    def __init__(self, artifact: Artifact, variant: Variant, engine: _Engine) -> None:
        self.path = artifact.path
        self.signature: Signature = artifact.manifest.signature
        self.variant: str = variant.name
        self.manifest: Mapping[str, Any] = artifact.manifest.raw
        self._engine: _Engine | None = engine
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

    def warm_up(self) -> None:
        """Return when the session runs at full speed (see `load`, "eager").

        Raises:
            EngineError: The engine could not prepare; runs go on as they are.
        """
        self._open_engine().finish()

    def bind(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None
    ) -> Binding:
        """Bind arrays for runs without copies or allocation; warms the session up.

        Args:
            inputs: Contiguous arrays, one for each input; later runs read them again.
            outputs: Arrays to be filled; those not given are allocated once, here.

        Raises:
            InputError: As for `run`, and for arrays that cannot be bound.
        """
        return Binding(self._open_engine(), self.signature, inputs, outputs or {})

    def close(self) -> None:
        """Let go of the engine and of the mapped file; runs in progress finish first."""
        self._engine = None

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

    def _open_engine(self) -> _Engine:
        if self._engine is None:
            raise InputError(
                "the session is closed", where=self.path, fix="load the artifact again"
            )
        return self._engine


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    threads: int | None = None,
    verify: bool = True,
    spinning: bool = True,
    eager: bool = False,
    cuda_graphs: bool = False,
) -> Session:
    """Load an artifact.

    Args:
        path: A `.lepton` file.
        device: Where to run: "cpu" or "gpu".
        threads: Threads within one operator; None lets the engine take one for each core.
        verify: Check every hash before any byte reaches the engine. Without it only the
            structure and the manifest are checked: for files that were verified before.
        spinning: Let idle threads spin: faster on a quiet machine, slower on a crowded one.
        eager: Prepare a large model fully before returning. Otherwise it answers from the
            mapped file at first, and from the second run on is prepared for full speed in the
            background; answers before and after may differ in the last bits.
        cuda_graphs: On a GPU, record the kernels of a bound run once and replay them.

    Raises:
        ArtifactError: The file is not a valid artifact.
        IntegrityError: Its bytes are not those that were written.
        UnsupportedError: It has nothing for this device.
        EnvironmentProblem: The engine, or the machine, is not what it demands.
        EngineError: The engine refuses the graph.
    """
    _check_arguments(device, threads, cuda_graphs=cuda_graphs)
    artifact = open_artifact(path)
    try:
        variant = _choose_variant(artifact, device)
        check_instructions(variant.demands.instructions, artifact.path)
        engine = _import_while_verifying(artifact, verify=verify)
        ort.check_version(engine, variant, artifact.path)
        loaded: _Engine
        if variant.device == "gpu":
            loaded = CudaEngine(engine, artifact, variant, graphs=cuda_graphs)
        else:
            loaded = OrtEngine(
                engine, artifact, variant, threads=threads, spinning=spinning, eager=eager
            )
    except LeptonError:
        artifact.close()
        raise
    return Session(artifact, variant, loaded)


def _import_while_verifying(artifact: Artifact, *, verify: bool) -> Any:
    """Import the engine on this thread while others hash; both are needed, neither waits."""
    if not verify:
        return ort.import_engine()
    verification = Verification(artifact, available_threads())
    try:
        engine = ort.import_engine()
    except LeptonError:
        verification.cancel()
        raise
    verification.wait()
    return engine


def _check_arguments(device: str, threads: int | None, *, cuda_graphs: bool) -> None:
    if device not in DEVICES:
        raise UnsupportedError(
            f"there is no device {device!r} in this build", fix='load(path, device="cpu")'
        )
    if cuda_graphs and device != "gpu":
        raise UnsupportedError(
            "CUDA graphs are recorded on a GPU only", fix='load(path, device="gpu")'
        )
    if threads is not None and (type(threads) is not int or threads < 1):
        raise InputError(
            f"threads={threads!r} is not a positive integer",
            fix="give the number of threads, or None for one for each core",
        )


def _choose_variant(artifact: Artifact, device: str) -> Variant:
    for variant in artifact.manifest.variants:
        if variant.backend == "ort" and variant.device == device:
            return variant
    names = ", ".join(variant.name for variant in artifact.manifest.variants)
    raise UnsupportedError(
        f"the artifact has no variant that this build can run on {device!r}: it has {names}",
        where=artifact.path,
        fix=f"compile it with `-t {'ort-cuda' if device == 'gpu' else 'ort-cpu'}`",
    )
