"""The result of a race between models: numbers, as JSON and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Measured:
    """One contender.

    Attributes:
        path: The file as it was given.
        kind: `artifact` or `onnx`.
        p50_ms, p90_ms, p99_ms: Latency of one call in milliseconds.
        per_second: Calls per second, one after another.
        ratio: Median over the rounds of this contender's block median by the first's.
        load_ms: New process: import and load.
        first_ms: The same process: its first answer.
        resident_bytes: Memory resident after that answer, shared pages included; None where
            /proc is missing.
        private_bytes: The part that no other process can share.
    """

    path: str
    kind: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    per_second: float
    ratio: float
    load_ms: float
    first_ms: float
    resident_bytes: int | None
    private_bytes: int | None


@dataclass(frozen=True)
class BenchReport:
    """What was measured, with what, in the order the files were given."""

    inputs: Mapping[str, str]
    synthetic: bool
    threads: int | None
    iterations: int
    seed: int
    rows: tuple[Measured, ...]

    def to_json(self) -> dict[str, object]:
        """Return plain dicts, lists, strings and numbers."""
        record = {name: getattr(self, name) for name in ("threads", "iterations", "seed")}
        return {
            **record,
            "inputs": dict(self.inputs),
            "synthetic": self.synthetic,
            "rows": [dataclasses.asdict(row) for row in self.rows],
        }

    def render(self, console: Console) -> None:
        """Print the settings and one line per contender."""
        origin = "made from the signature, for speed only" if self.synthetic else "as given"
        shapes = ", ".join(f"{name} {spec}" for name, spec in self.inputs.items())
        threads = "the engine's choice" if self.threads is None else self.threads
        console.print(f"inputs {origin}: {shapes}", markup=False)
        console.print(f"{self.iterations} timed calls each, interleaved; threads: {threads}")
        console.print(_table(self.rows))


def _table(rows: Sequence[Measured]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    for heading in ("p50 ms", "p90", "p99", "per s", "ratio", "load ms", "first", "MB", "own MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.path.replace("[", r"\["),
            *(_milliseconds(value) for value in (row.p50_ms, row.p90_ms, row.p99_ms)),
            f"{row.per_second:.0f}",
            f"{row.ratio:.2f}",
            *(f"{value:.0f}" for value in (row.load_ms, row.first_ms)),
            *(_megabytes(value) for value in (row.resident_bytes, row.private_bytes)),
        )
    return table


def _milliseconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:.0f}"
