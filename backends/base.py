"""The backend protocol: what to build for, and what a build gives.

A compile asks `supports` of each target before the source is opened, then exports and rewrites the
graph for the target's platform, asks for `build`, writes the payloads into one artifact, and proves
each variant by loading it with the runtime's loader for its backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES

if TYPE_CHECKING:
    import onnx_ir as ir

_PIECE = 4 << 20
# Weights up to this size, in bytes, stay in a graph; larger ones are stored beside it.
INLINE_BYTES = 1024
# How manifests spell the types of ONNX, by their numbers.
TYPE_NAMES = {element.onnx: name for name, element in ELEMENT_TYPES.items()}

# Gets how much of the work is done, from 0 to 1, and what is being done.
Progress = Callable[[float, str], None]


def ignore_progress(done: float, text: str) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class DimRange:
    """The smallest, the most usual and the largest size of a dimension."""

    min: int
    opt: int
    max: int

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}"


# One range for each named dimension.
DimProfile = Mapping[str, DimRange]


@dataclass(frozen=True)
class TargetRow:
    """One target of a backend.

    Attributes:
        name: What people write for it: "ort-cpu".
        device: "cpu", or "gpu" for NVIDIA's.
        platform: What the passes rewrite for: one of `leptonc.passes.TARGETS`.
        extra: The extra of the distribution that brings the engine; empty when its plain
            requirements do.
        standard_operators: The engine takes ONNX's own operators only, so those of others are
            written in them before anything else.
        needs_ranges: The engine builds for ranges of sizes: `Target.profiles` says which.
        timed: The compiler itself can run what is built: a search for layers to quantise builds
            and times its candidates. Those of other targets are judged by their graph.
    """

    name: str
    device: str
    platform: str
    extra: str = ""
    standard_operators: bool = False
    needs_ranges: bool = False
    timed: bool = False


@dataclass(frozen=True)
class Target:
    """What to build for.

    Attributes:
        backend: The name of one of `BACKENDS`: "ort".
        row: Its name, its device, and what the passes rewrite for.
        precision: "fp32", "fp16", "int8", ...
        require: What the artifact may demand of a machine: "portable" for any machine,
            "native" for machines with the instruction sets of this one.
        options: What was asked of the backend: of the type of its row's `options`, or None.
        profiles: The ranges of the named dimensions to build for, where the engine needs them.
    """

    backend: str
    row: TargetRow
    precision: str = "fp32"
    require: str = "portable"
    options: Any = None
    profiles: tuple[DimProfile, ...] = ()

    @property
    def device(self) -> str:
        """Where it runs: "cpu" or "gpu"."""
        return self.row.device

    @property
    def plain_name(self) -> str:
        """What people write for it: "ort-cpu"."""
        return self.row.name

    @property
    def platform(self) -> str:
        """What the passes rewrite for: one of `leptonc.passes.TARGETS`."""
        return self.row.platform

    @property
    def name(self) -> str:
        """The name of the variant built for it: the target's, and the precision unless fp32."""
        plain = self.plain_name
        return plain if self.precision == "fp32" else f"{plain}-{self.precision}"

    def variant(
        self,
        demands: Mapping[str, Any],
        options: Mapping[str, str] | None = None,
        section: str = "graph",
    ) -> dict[str, Any]:
        """Return the manifest's entry of what was built for it.

        Args:
            demands: What loading it takes, as the runtime's loader for the backend reads it.
            options: Settings for the loader.
            section: What the section with the engine's graph is called.
        """
        return {
            "name": self.name,
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "demands": dict(demands),
            "graph": f"{self.name}/{section}",
            "options": dict(options or {}),
        }


@dataclass(frozen=True)
class Unsupported:
    """Why a backend cannot build for a target.

    Attributes:
        reason: What is missing: "the ort backend does not build precision 'int3' yet".
        fix: What to ask for instead.
    """

    reason: str
    fix: str


@dataclass(frozen=True)
class PayloadWeight:
    """An initialiser that is stored outside the graph.

    Attributes:
        name: In the payload's graph.
        dtype: A key of `leptonc.runtime.artifact.dtypes.ELEMENT_TYPES`.
        tensor: Its values; lazy when they are in a file.
    """

    name: str
    dtype: str
    tensor: ir.TensorProtocol

    @staticmethod
    def of(name: str, tensor: ir.TensorProtocol) -> PayloadWeight:
        """Return `tensor` as a weight; its type is one of `ELEMENT_TYPES`."""
        return PayloadWeight(name, TYPE_NAMES[int(tensor.dtype)], tensor)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Give the little-endian bytes in order, never all of a file at once."""
        import onnx_ir as ir

        if not isinstance(self.tensor, ir.ExternalTensor):
            array = np.array(self.tensor.numpy(), order="C", copy=None)
            yield array.reshape(-1).view(np.uint8).data
            return
        with Path(self.tensor.path).open("rb") as file:
            file.seek(self.tensor.offset or 0)
            left = self.tensor.nbytes
            while left and (piece := file.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece


@dataclass(frozen=True)
class Payload:
    """What a backend built for one target.

    Attributes:
        variant: The entry of the manifest, without "weights", which `pack` adds.
        graph: The engine's graph, without the weights below.
        weights: Sorted by name; lazy, so the build's folder must outlive the payload.
        placement: Provider to operator to count, as the engine reports it.
        built: The graph with its weights, as `model` returns it.
        not_run: Why the engine has not run the graph on this machine, or None when it has. Such
            a graph is proven on another engine, and the evidence says so.
        figures: What the build took: "seconds", "plan_bytes", "peak_bytes" and the like, for
            people. They differ from build to build and never enter the artifact.
        integers: The engine's operator for each quantised layer, by layer.
    """

    variant: Mapping[str, Any]
    graph: bytes
    weights: tuple[PayloadWeight, ...]
    placement: Mapping[str, Mapping[str, int]]
    built: ir.Model
    not_run: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    integers: Mapping[str, str] = field(default_factory=dict)

    def model(self) -> ir.Model:
        """Return a copy of the payload's graph with its weights, to compare and inspect."""
        return self.built.clone()


class Backend(Protocol):
    """Lowers and builds a graph for one engine, and reads back what the engine made of it.

    What it may be able to do besides is in `leptonc.backends.abilities`.

    Attributes:
        name: That of its row.
    """

    name: ClassVar[str]

    def supports(self, target: Target) -> Unsupported | None:
        """Return why this backend cannot build for `target`, or None when it can.

        It is asked first, before the source is opened, and needs no engine to answer.
        """
        ...

    def build(
        self,
        model: ir.Model,
        target: Target,
        workdir: Path,
        progress: Progress = ignore_progress,
    ) -> Payload:
        """Build `model`, which stays as it is.

        Args:
            model: Rewritten for `target.platform`, in the target's precision: what is computed in
                integers is written with QuantizeLinear and DequantizeLinear. Shapes may have named
                dimensions; weights are in memory or external.
            target: One that `supports` had nothing against.
            workdir: For large files; outlives the payload.
            progress: Gets how far the build is, if the engine says so.

        Returns:
            The payload. The same model and target give the same bytes: no times, no paths, no
            order of a set. Inputs and outputs keep names, order, types and shapes.

        Raises:
            EngineMissingError: The engine is not installed.
            UnsupportedOperatorError: It does not take a node, which is named.
            UnsupportedInterfaceError: It does not take an input or output.
            PlacementError: A node is not computed where, or in the arithmetic, that was asked for.
            BuildError: The engine failed, or its result is not the model.
        """
        ...
