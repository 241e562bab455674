"""The backend protocol: what to build for, and what a build gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import onnx_ir as ir

from leptonc.backends.errors import UnsupportedTargetError

DEVICES = ("cpu", "gpu")
# Named in the plans, so that asking for one is not told to be a spelling mistake.
PLANNED_TARGETS = ("ort-cuda", "tensorrt", "openvino")
REQUIREMENTS = ("portable", "native")
_PIECE = 4 << 20


@dataclass(frozen=True)
class Target:
    """What to build for.

    Attributes:
        backend: A key of `BACKENDS`: "ort".
        device: "cpu" or "gpu".
        precision: "fp32", "fp16", "int8", ...
        require: What the artifact may demand of a machine: "portable" for any machine,
            "native" for machines with the instruction sets of this one.
    """

    backend: str
    device: str
    precision: str = "fp32"
    require: str = "portable"

    @classmethod
    def parse(cls, text: str, *, precision: str = "fp32", require: str | None = None) -> Target:
        """Read `backend-device`, e.g. "ort-cpu".

        Raises:
            UnsupportedTargetError: Not of that form, or an unknown device or requirement.
        """
        if text in PLANNED_TARGETS:
            raise UnsupportedTargetError(
                f"this version of leptonc does not build for {text!r} yet", fix="use ort-cpu"
            )
        backend, separator, device = text.partition("-")
        if not backend or not separator or device not in DEVICES:
            raise UnsupportedTargetError(
                f"{text!r} is not a target", fix="write backend-device, e.g. ort-cpu"
            )
        if require not in (None, *REQUIREMENTS):
            raise UnsupportedTargetError(
                f"{require!r} is not something an artifact can require",
                fix=f"use one of: {', '.join(REQUIREMENTS)}",
            )
        return cls(backend, device, precision, require or "portable")

    @property
    def name(self) -> str:
        """The name of the variant built for it: backend, device, and precision unless fp32."""
        plain = self.platform
        return plain if self.precision == "fp32" else f"{plain}-{self.precision}"

    @property
    def platform(self) -> str:
        """Backend and device: what a graph is rewritten for, in whatever precision."""
        return f"{self.backend}-{self.device}"


@dataclass(frozen=True)
class PayloadWeight:
    """An initialiser that is stored outside the graph.

    Attributes:
        name: In the payload's graph.
        dtype: A key of `leptonc.runtime.dtypes.ELEMENT_TYPES`.
        tensor: Its values; lazy when they are in a file.
    """

    name: str
    dtype: str
    tensor: ir.TensorProtocol

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Give the little-endian bytes in order, never all of a file at once."""
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
        integers: The engine's operator for each quantised layer, by layer.
    """

    variant: Mapping[str, Any]
    graph: bytes
    weights: tuple[PayloadWeight, ...]
    placement: Mapping[str, Mapping[str, int]]
    built: ir.Model
    integers: Mapping[str, str] = field(default_factory=dict)

    def model(self) -> ir.Model:
        """Return a copy of the payload's graph with its weights, to compare and inspect."""
        return self.built.clone()


class Backend(Protocol):
    """Lowers and builds a graph for one engine, and reads back what the engine made of it."""

    name: ClassVar[str]

    def supports(self, target: Target) -> str | None:
        """Return why this backend cannot build for `target`, or None when it can."""
        ...

    def build(self, model: ir.Model, target: Target, workdir: Path) -> Payload:
        """Build `model`, which stays as it is, using `workdir` for large files."""
        ...
