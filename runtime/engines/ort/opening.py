"""Opens a variant on ONNX Runtime: what the machine lacks is said before the engine sees a byte."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import Artifact
from leptonc.runtime.engines.load_options import LoadOptions
from leptonc.runtime.engines.ort import library
from leptonc.runtime.engines.ort.cpu import OrtEngine
from leptonc.runtime.machine import Host, check_instructions

if TYPE_CHECKING:
    from leptonc.runtime.engines.base import Engine, Opener, Verdict


@dataclass(frozen=True)
class OrtLoader:
    """What opens graphs on one device, and says whether they will open elsewhere; see `Loader`."""

    device: str

    def prepare(self, variant: Variant, where: str) -> Opener:
        """Import ONNX Runtime, unless the CPU is not the one that the variant was built for.

        Raises:
            MachineError: The CPU lacks instruction sets.
            EngineMissingError: ONNX Runtime is not installed, or cannot be imported.
        """
        check_instructions(variant.demands.instructions, where)
        return partial(self._open, library.import_engine())

    def look(self, host: Host) -> Host:
        """Add the version and the providers of ONNX Runtime."""
        from leptonc.runtime.engines.ort.machine import look

        return look(host)

    def judge(self, artifact: Artifact, variant: Variant, host: Host) -> Verdict:
        """Judge by what the variant demands; its graph is not looked at."""
        from leptonc.runtime.engines.ort.machine import judge

        del artifact
        return judge(variant, host)

    def _open(
        self, engine: Any, artifact: Artifact, variant: Variant, options: LoadOptions
    ) -> Engine:
        library.check_version(engine, variant, artifact.path)
        if self.device == "gpu":
            from leptonc.runtime.engines.ort.cuda import CudaEngine

            return CudaEngine(engine, artifact, variant, graphs=options.cuda_graphs)
        return OrtEngine(
            engine,
            artifact,
            variant,
            threads=options.threads,
            spinning=options.spinning,
            eager=options.eager,
        )
