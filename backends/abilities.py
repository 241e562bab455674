"""What a backend may be able to do besides building; one that is asked and cannot says why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from leptonc.backends.base import Target
from leptonc.passes.pipeline import LINE_KEY

if TYPE_CHECKING:
    import onnx_ir as ir

    from leptonc.runtime.artifact.manifest import Variant
    from leptonc.runtime.artifact.reader import Artifact


@dataclass(frozen=True)
class Refused:
    """A node that an engine does not take.

    Attributes:
        node: Its name.
        operator: With its domain, unless it is the standard one.
        reason: Why.
        fix: What to do.
        line: The line of the user's module that it came from, or None.
    """

    node: str
    operator: str
    reason: str
    fix: str
    line: str | None

    @staticmethod
    def of(node: ir.Node, reason: str, fix: str) -> Refused:
        """Return the entry for a node of the graph."""
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        line = node.metadata_props.get(LINE_KEY)
        return Refused(node.name or "", name, reason, fix, line)

    def to_json(self) -> dict[str, str | None]:
        """Return plain values."""
        return asdict(self)

    @property
    def where(self) -> str:
        """The node, and the user's line where it is known."""
        place = f"node {self.node!r} ({self.operator})"
        return f"{place}, from {self.line}" if self.line else place


@dataclass(frozen=True)
class DryRun:
    """What an engine takes of a graph.

    Attributes:
        refused: The nodes that it does not take, in graph order.
        parser: The engine and version that has read the graph; None where known rules said it.
    """

    refused: tuple[Refused, ...]
    parser: str | None = None


@runtime_checkable
class DryRuns(Protocol):
    """A backend that says what its engine takes without building: `leptonc compile --dry-run`."""

    def dry_run(self, model: ir.Model, target: Target, workdir: Path) -> DryRun:
        """Say which nodes of `model` the engine would refuse.

        Args:
            model: As for `build`; it stays as it is.
            target: As for `build`.
            workdir: For files while this runs.
        """
        ...


@runtime_checkable
class ReadsGraphs(Protocol):
    """A backend whose graphs can be read back, for `inspect` and to find a node that is wrong."""

    def read(self, artifact: Artifact, variant: Variant) -> ir.Model:
        """Return the graph of a variant of an open artifact; weights stay in the file.

        It is ONNX with the domains of the engine, and outlives `artifact`.
        """
        ...
