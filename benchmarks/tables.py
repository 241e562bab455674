"""Results as a Markdown table and as JSON, with the command and the machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"
TOOLS = ("leptonc", "onnxruntime", "torch", "transformers", "numpy")


def write(
    name: str,
    *,
    title: str,
    notes: str,
    table: Sequence[Mapping[str, str]],
    rows: Sequence[Mapping[str, Any]],
    more: Mapping[str, Sequence[Mapping[str, str]]] = MappingProxyType({}),
    folder: Path = FOLDER,
) -> None:
    """Write `name.md` and `name.json`, and print the table.

    Args:
        name: The file's name without its ending.
        title: The heading.
        notes: How to read the columns.
        table: One mapping per row, from heading to text, all with the same headings.
        rows: The same rows in full, for machines.
        more: Further tables by their headings.
        folder: Where to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    about = machine()
    text = "\n".join(
        [
            f"# {title}",
            "",
            f"`{command}`",
            "",
            ", ".join(f"{key} {value}" for key, value in about.items()),
            "",
            *_markdown(table),
            "",
            *(line for name, each in more.items() for line in _titled(name, each)),
            notes,
            "",
        ]
    )
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    record = {"command": command, "machine": about, "rows": list(rows)}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(text)


def _titled(heading: str, table: Sequence[Mapping[str, str]]) -> list[str]:
    return [f"## {heading}", "", *_markdown(table), ""]


def _markdown(table: Sequence[Mapping[str, str]]) -> list[str]:
    headings = list(table[0])
    return [
        f"| {' | '.join(headings)} |",
        f"|{'---|' * len(headings)}",
        *(f"| {' | '.join(row[heading] for heading in headings)} |" for row in table),
    ]


def machine() -> dict[str, str]:
    """Return the processor, the cores that this process may use, and the versions of the tools."""
    found = {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
    }
    return found | {tool: metadata.version(tool) for tool in TOOLS}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def megabytes(count: float) -> str:
    """Return a number of bytes as text, in units of 1,000,000."""
    return f"{count / 1e6:,.1f}" if count < 1e7 else f"{count / 1e6:,.0f}"
