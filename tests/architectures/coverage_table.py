"""docs/coverage.md: the table as text, the text as rows, and what makes a row worse."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from measure import TARGETS, Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coverage.md"
COMMAND = "make coverage"

# Another processor sums in another order, which moves an SQNR by a few decibels.
SLACK_DB = 10.0

HEAD = f"""\
# Coverage

What the passes make of {{architectures}} architectures, in tiny configurations with seeded weights
([tests/architectures](../tests/architectures)): nodes as PyTorch's exporter writes them at
opset 20 and after `leptonc.passes.optimize` for two targets, which fusions fired and how often
([passes.md](passes.md) says what each is), and the lowest signal-to-noise ratio of any output
against the PyTorch module: at three shapes, for both targets, on ONNX Runtime with its own
optimiser off. `eager` and `sdpa` are the implementations of attention in transformers; `_cache`
is a step of generation with keys and values of earlier tokens in and out.

Written by `{COMMAND}`. A test fails when a model does worse than its row.
"""

_HEADINGS = (
    "architecture",
    "attention",
    "exported",
    *TARGETS,
    *(f"fused for {target}" for target in TARGETS),
    "SQNR, dB",
)


def page(rows: Sequence[Row]) -> str:
    """Return the whole page."""
    count = len({row.architecture.removesuffix("_cache") for row in rows})
    lines = [
        HEAD.format(architectures=count),
        f"| {' | '.join(_HEADINGS)} |",
        "|---|---|" + "---:|" * 3 + "---|" * len(TARGETS) + "---:|",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
        _total(rows),
    ]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    return [
        row.architecture,
        row.attention,
        str(row.exported),
        *(str(row.nodes[target]) for target in TARGETS),
        *(_listed(row.fused[target]) for target in TARGETS),
        "equal" if math.isinf(row.sqnr_db) else f"{row.sqnr_db:.0f}",
    ]


def _listed(fused: Counter[str]) -> str:
    return ", ".join(f"{count} {rule}" for rule, count in sorted(fused.items())) or "-"


def _total(rows: Sequence[Row]) -> str:
    sums = [sum(row.nodes[target] for row in rows) for target in TARGETS]
    counts = [str(sum(row.exported for row in rows)), *map(str, sums)]
    return f"| **all** |  | {' | '.join(counts)} |{'  |' * (len(TARGETS) + 1)}"


def parse(text: str) -> tuple[Row, ...]:
    """Return the rows of a page, its total left out."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return tuple(_row(line) for line in lines[1:] if not line.startswith("| **"))


def _row(line: str) -> Row:
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    numbers = [int(cell) for cell in cells[2 : 3 + len(TARGETS)]]
    fused = cells[3 + len(TARGETS) : 3 + 2 * len(TARGETS)]
    return Row(
        architecture=cells[0],
        attention=cells[1],
        exported=numbers[0],
        nodes=dict(zip(TARGETS, numbers[1:], strict=True)),
        fused={target: _counts(cell) for target, cell in zip(TARGETS, fused, strict=True)},
        sqnr_db=math.inf if cells[-1] == "equal" else float(cells[-1]),
    )


def _counts(cell: str) -> Counter[str]:
    if cell == "-":
        return Counter()
    pairs = (part.split(" ", 1) for part in cell.split(", "))
    return Counter({rule: int(count) for count, rule in pairs})


def worse(row: Row, committed: Row) -> list[str]:
    """Return what is worse in `row` than in the committed table, in words."""
    found: list[str] = []
    for target in TARGETS:
        if row.nodes[target] > committed.nodes[target]:
            found.append(
                f"{row.nodes[target]} nodes for {target} instead of {committed.nodes[target]} "
                f"({row.exported} exported; the table was made of {committed.exported})"
            )
        for rule, count in sorted((committed.fused[target] - row.fused[target]).items()):
            found.append(f"{rule} fired {count} times less for {target}")
    if row.sqnr_db < committed.sqnr_db - SLACK_DB:
        found.append(f"SQNR {row.sqnr_db:.0f} dB instead of {committed.sqnr_db:.0f}")
    return found


def better(row: Row, committed: Row) -> bool:
    """Return whether `row` beats the committed table and is nowhere worse."""
    fewer = any(row.nodes[target] < committed.nodes[target] for target in TARGETS)
    return not worse(row, committed) and fewer
