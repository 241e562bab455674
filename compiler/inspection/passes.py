"""What each pass did to a graph: which rules fired, where, and why near misses did not."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leptonc.compiler.inspection.layers import render_quantization
from leptonc.compiler.inspection.tables import origin_text
from leptonc.runtime.artifact.reader import open_artifact
from leptonc.runtime.engines.loaders import DEMANDS
from leptonc.runtime.errors import InputError

# Names in one row of a table; `--json` has all that are recorded.
SHOWN = 4

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Explanation:
    """What the manifest of an artifact says about the passes that made it.

    Attributes:
        path: The artifact.
        compiled_by: The version of leptonc.
        passes: The entries of the manifest.
        plugins: The passes of other distributions that took part.
        quantization: How the layers of each quantised variant are computed, by its name.
        integers: What the engine reads each integer weight with, by variant and layer.
    """

    path: str
    compiled_by: str
    passes: tuple[Entry, ...]
    plugins: tuple[Entry, ...]
    quantization: Entry
    integers: Entry

    def to_json(self) -> dict[str, object]:
        """Return the one object that `--json` prints."""
        return dataclasses.asdict(self)

    def render(self, console: Console) -> None:
        """Print it for people."""
        render(self.passes, self.plugins, console)
        render_quantization(self.quantization, self.integers, console)


def explain(path: Path) -> Explanation:
    """Read what `leptonc inspect --passes` shows.

    Raises:
        InputError: `path` is no artifact, or one whose compiler recorded less.
        ArtifactError: Not a valid artifact, or not the bytes that were written.
    """
    if path.suffix == ".onnx":
        raise InputError(
            "an .onnx file does not say which passes made it",
            where=str(path),
            fix=f"leptonc compile --explain {path}",
        )
    with open_artifact(path, DEMANDS) as artifact:
        artifact.verify()
        manifest = artifact.manifest.raw
    explained = explanation(path, manifest)
    if not all({"fired", "refused"} <= entry.keys() for entry in explained.passes):
        raise InputError(
            f"the artifact was compiled by leptonc {manifest['leptonc']}, which did not record "
            "where its passes fired",
            where=str(path),
            fix="compile it again, or see the counts with leptonc inspect",
        )
    return explained


def explanation(path: Path, manifest: Mapping[str, Any]) -> Explanation:
    """Return what a manifest, finished or not yet written, says of the passes and the layers."""
    return Explanation(
        str(path),
        manifest["leptonc"],
        tuple(manifest.get("passes", ())),
        tuple(manifest.get("plugins", ())),
        manifest.get("quantization", {}),
        manifest.get("evidence", {}).get("integers", {}),
    )


def render(entries: Sequence[Entry], plugins: Sequence[Entry], console: Console) -> None:
    """Print what fired and what nearly did, pass by pass."""
    origins = {each["name"]: origin_text(each) for each in plugins}
    idle: list[str] = []
    for name in dict.fromkeys(entry["name"] for entry in entries):
        runs = [entry for entry in entries if entry["name"] == name]
        title = f"{name} (from {origins[name]})" if name in origins else name
        if any(run["counts"] or run["refused"] for run in runs):
            _render_pass(title, runs, console)
        else:
            idle.append(title)
    if idle:
        console.print()
        console.print(f"found nothing to do: {escape(', '.join(idle))}")


def _render_pass(title: str, runs: Sequence[Entry], console: Console) -> None:
    before = sum(run["nodes_before"] for run in runs)
    change = sum(run["nodes_after"] for run in runs) - before
    console.print()
    console.print(f"[bold]{escape(title)}[/]: nodes {change:+d}")
    counts: Counter[str] = Counter()
    for run in runs:
        counts.update(run["counts"])
    if counts:
        console.print(_firings(counts, runs))
    near = [group for run in runs for group in run["refused"]]
    if near:
        console.print(_near_misses(near))
    unnamed = sum(run["refused_count"] - sum(g["count"] for g in run["refused"]) for run in runs)
    if unnamed:
        console.print(f"and {unnamed} more near misses, which the manifest does not name")


def _firings(counts: Mapping[str, int], runs: Sequence[Entry]) -> Table:
    nodes: dict[str, list[str]] = {}
    for run in runs:
        for group in run["fired"]:
            nodes.setdefault(group["rule"], []).extend(group["nodes"])
    table = Table("fired", box=None, pad_edge=False)
    table.add_column("times", justify="right")
    table.add_column("at", overflow="fold")
    for kind in sorted(counts):
        table.add_row(escape(kind), str(counts[kind]), _names(nodes.get(kind, ()), counts[kind]))
    if not nodes:
        # The pass is not made of rules: it counts by kind, and its nodes are known together.
        for kind in ("removed", "rewritten"):
            count = sum(run[kind]["count"] for run in runs)
            named = [node for run in runs for node in run[kind]["nodes"]]
            table.add_row(f"nodes {kind}", str(count), _names(named, count))
    return table


def _near_misses(groups: Sequence[Entry]) -> Table:
    table = Table("near miss", box=None, pad_edge=False)
    table.add_column("times", justify="right")
    table.add_column("at", overflow="fold")
    table.add_column("because", overflow="fold")
    for group in groups:
        table.add_row(
            escape(group["rule"] or "-"),
            str(group["count"]),
            _names(group["nodes"], group["count"]),
            escape(group["reason"]),
        )
    return table


def _names(nodes: Sequence[str], count: int) -> str:
    """Return the first names, and how many there are beyond them."""
    shown = [node or "(unnamed)" for node in nodes[:SHOWN]]
    if shown and count > len(shown):
        shown.append(f"and {count - len(shown)} more")
    return escape(", ".join(shown))
