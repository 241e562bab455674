"""What an engine is to the rest of the runtime; public, for those who bring one of their own.

An `EngineRow` (`leptonc.runtime.engines.row`) names a `Loader`, which opens variants as an `Engine`.
What an engine lacks raises `UnsupportedError` with the reason. Nothing here is imported by a load:
these are types, and what `leptonc check` answers with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from leptonc.runtime.artifact.manifest import Variant
    from leptonc.runtime.artifact.reader import Artifact
    from leptonc.runtime.cuda.binding import DeviceEngine
    from leptonc.runtime.engines.load_options import LoadOptions
    from leptonc.runtime.inputs import Array, Arrays
    from leptonc.runtime.machine import Host


class Pending(Protocol):
    """A run that was started."""

    def done(self) -> bool:
        """Return whether `result` would return at once."""
        ...

    def result(self) -> Arrays:
        """Wait for the run and return new arrays by output name.

        Raises:
            EngineError: The engine failed.
        """
        ...


class Engine(Protocol):
    """An opened variant. Every method but `close` may be called from many threads at once.

    Arrays that are given are contiguous and have the names, dtypes and sizes of the signature.
    """

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """Run once and return new arrays by output name.

        Raises:
            InputError: It takes no arrays of these sizes.
            EngineError: The engine failed.
        """
        ...

    def start(self, inputs: Mapping[str, Array]) -> Pending:
        """Start a run and return; the inputs may be overwritten at once.

        Raises:
            UnsupportedError: The engine has no asynchronous runs.
        """
        ...

    def bind(self, inputs: Arrays, outputs: Arrays) -> Any:
        """Return an opaque binding of these arrays for `run_bound`."""
        ...

    def run_bound(self, bound: Any, inputs: Arrays) -> None:
        """Run once on what `bind` returned; `inputs` are those that were bound, for messages.

        Raises:
            EngineError: The engine failed.
        """
        ...

    def on_gpu(self) -> DeviceEngine:
        """Return what binds arrays that lie on its GPU.

        Raises:
            UnsupportedError: The engine takes no such arrays.
        """
        ...

    def finish(self) -> None:
        """Return when runs go at full speed.

        Raises:
            EngineError: The engine could not prepare; runs go on as they are.
        """
        ...

    def close(self) -> None:
        """Let go of everything; runs in progress finish first."""
        ...


Opener: TypeAlias = "Callable[[Artifact, Variant, LoadOptions], Engine]"


@dataclass(frozen=True)
class Reason:
    """Why a variant will not load, and what to do."""

    what: str
    fix: str


@dataclass(frozen=True)
class Verdict:
    """Whether a variant will load on a machine.

    Attributes:
        reasons: Why not; empty when it will.
        not_known: What is not known of the machine and has to be right.
    """

    reasons: tuple[Reason, ...] = ()
    not_known: tuple[str, ...] = ()


class Loader(Protocol):
    """What opens the variants of one row, and says whether they will open elsewhere."""

    def prepare(self, variant: Variant, where: str) -> Opener:
        """Import the engine, and return what opens the variant.

        The hashes of the file are checked at the same time, on other threads; what is returned is
        called when they are known to be right. It raises what `load` does: EnvironmentProblem for
        what this machine lacks, ArtifactError for demands that cannot be, EngineError for a
        payload that the engine refuses.

        Args:
            variant: One of the row's backend and device; its bytes are not to be looked at yet.
            where: The artifact, for messages.

        Raises:
            EngineMissingError: The engine is not installed.
            MachineError: This machine lacks what the variant demands.
        """
        ...

    def look(self, host: Host) -> Host:
        """Return `host`, which is this machine, with what is known of the engine here."""
        ...

    def judge(self, artifact: Artifact, variant: Variant, host: Host) -> Verdict:
        """Say whether a variant will load on a machine, by the rules of loading.

        Raises:
            ArtifactError: Its payload is not the one that the manifest describes.
        """
        ...
