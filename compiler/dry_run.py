"""`leptonc compile --dry-run`: which nodes of the graph TensorRT takes, without building."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from leptonc.backends.base import Target
from leptonc.backends.tensorrt.backend import check_coverage
from leptonc.backends.tensorrt.operators import Uncovered
from leptonc.compiler.console.progress import Stages
from leptonc.compiler.driver import lowered_graphs
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.workspace import scratch_folder
from leptonc.passes.graph.structure import count_nodes


@dataclass(frozen=True)
class TargetCoverage:
    """What a target takes of the graph.

    Attributes:
        target: Its name.
        nodes: How many nodes the graph for it has.
        uncovered: Those that it does not take.
        parser: The version whose parser has read the graph, or None.
    """

    target: str
    nodes: int
    uncovered: tuple[Uncovered, ...]
    parser: str | None


@dataclass(frozen=True)
class CoverageReport:
    """What each target takes."""

    targets: tuple[TargetCoverage, ...]

    @property
    def covered(self) -> bool:
        """Whether every target takes every node."""
        return not any(each.uncovered for each in self.targets)

    def to_json(self) -> dict[str, Any]:
        """Return the one object that `--json` prints."""
        return {
            "covered": self.covered,
            "targets": [
                {
                    "target": each.target,
                    "nodes": each.nodes,
                    "parser": each.parser,
                    "uncovered": [node.to_json() for node in each.uncovered],
                }
                for each in self.targets
            ],
        }

    def render(self, console: Console) -> None:
        """Print a line for each target, and each node that it does not take."""
        for each in self.targets:
            by = f"read by the parser of {each.parser}" if each.parser else "by its known rules"
            taken = each.nodes - len({node.node for node in each.uncovered})
            console.print(f"{each.target}: {taken} of {each.nodes} nodes are taken ({by})")
            for node in each.uncovered:
                lines = (node.where, f"  why:   {node.reason}", f"  fix:   {node.fix}")
                console.print("\n".join(lines), highlight=False, markup=False)


def report_coverage(settings: CompileSettings, stages: Stages) -> CoverageReport:
    """Rewrite the source for each target, and ask what TensorRT takes of the result.

    Raises:
        UsageError: A target is not TensorRT.
        LeptonError: As for a compile.
    """
    others = [name for name in settings.target if name != "tensorrt"]
    if others:
        raise UsageError(
            f"--dry-run reports on the target tensorrt only, not on {', '.join(others)}",
            fix="use it with -t tensorrt alone",
        )
    with scratch_folder() as folder:
        lowered = lowered_graphs(settings, stages)
        with stages.stage("coverage", "ask what TensorRT takes"):
            found = []
            for each in lowered:
                target: Target = each.target
                nodes, parser = check_coverage(each.model, target, folder)
                total = count_nodes(each.model)
                found.append(TargetCoverage(target.name, total, nodes, parser))
    return CoverageReport(tuple(found))
