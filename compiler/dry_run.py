"""`leptonc compile --dry-run`: which nodes of the graph its engine takes; nothing is built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from leptonc.backends import find_backend
from leptonc.backends.abilities import DryRun, DryRuns
from leptonc.backends.rows import all_rows
from leptonc.compiler.console.progress import Steps
from leptonc.compiler.driver import lowered_graphs
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.targets import targets_of
from leptonc.compiler.workspace import scratch_folder
from leptonc.passes.graph.structure import count_nodes


@dataclass(frozen=True)
class TargetDryRun:
    """What a target takes of the graph.

    Attributes:
        target: Its name.
        nodes: How many nodes the graph for it has.
        said: Which of them it does not take.
    """

    target: str
    nodes: int
    said: DryRun


@dataclass(frozen=True)
class DryRunReport:
    """What each target takes."""

    targets: tuple[TargetDryRun, ...]

    @property
    def covered(self) -> bool:
        """Whether every target takes every node."""
        return not any(each.said.refused for each in self.targets)

    def to_json(self) -> dict[str, Any]:
        """Return the one object that `--json` prints."""
        return {
            "covered": self.covered,
            "targets": [
                {
                    "target": each.target,
                    "nodes": each.nodes,
                    "parser": each.said.parser,
                    "uncovered": [node.to_json() for node in each.said.refused],
                }
                for each in self.targets
            ],
        }

    def render(self, console: Console) -> None:
        """Print a line for each target, and each node that it does not take."""
        for each in self.targets:
            said = each.said
            by = f"read by the parser of {said.parser}" if said.parser else "by its known rules"
            taken = each.nodes - len({node.node for node in said.refused})
            console.print(f"{each.target}: {taken} of {each.nodes} nodes are taken ({by})")
            for node in said.refused:
                lines = (node.where, f"  why:   {node.reason}", f"  fix:   {node.fix}")
                console.print("\n".join(lines), highlight=False, markup=False)


def dry_run(settings: CompileSettings, steps: Steps) -> DryRunReport:
    """Rewrite the source for each target, and ask what its engine takes of the result.

    Raises:
        UsageError: The backend of a target does not say it.
        LeptonError: As for a compile.
    """
    targets = targets_of(settings)
    backends = [find_backend(target) for target in targets]
    able = [backend for backend in backends if isinstance(backend, DryRuns)]
    if len(able) < len(backends):
        raise _not_said(
            target.plain_name
            for target, backend in zip(targets, backends, strict=True)
            if backend not in able
        )
    with scratch_folder() as folder:
        lowered = lowered_graphs(settings, steps)
        with steps.step("coverage", f"ask what {', '.join(settings.target)} takes"):
            found = []
            for backend, each in zip(able, lowered, strict=True):
                said = backend.dry_run(each.model, each.target, folder)
                found.append(TargetDryRun(each.target.name, count_nodes(each.model), said))
    return DryRunReport(tuple(found))


def _not_said(names: Iterable[str]) -> UsageError:
    able = [
        target.name
        for row in all_rows()
        for target in row.targets
        if isinstance(row.load(), DryRuns)
    ]
    return UsageError(
        f"--dry-run reports on the target {', '.join(able)} only, not on {', '.join(names)}",
        fix=f"use it with -t {able[0]} alone",
    )
