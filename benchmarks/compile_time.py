"""Compile time and memory of each recipe, against torch's export alone."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import options as options_of
import tables
from cases import RECIPES
from contenders import WORK, answer, compile_command, export_command
from memory_of_tree import peak_of

# Stages that are not ours: building the user's module, and torch's export.
THEIRS = ("load", "export")

NOTES = """\
Seconds are medians. *Export* is the stage of `leptonc compile` that calls torch; *ours* is every
other stage but the building of the user's module, running the module for reference and
verification included; their ratio is the median over the runs of ours divided by export in the same
run. *Export alone* is the export in a process that does nothing else and uses nothing of leptonc.
Memory is the largest that the process and its children occupied together (proportional set size, in
MB of 1,000,000 bytes): *peak* when compiling, *exporter's* when exporting alone and saving one
file. *Factor* is (peak - exporter's) / weights, which may be 2.5 at most; where the weights are
smaller than the libraries that a process loads, it says nothing."""


def main() -> None:
    """Compile and export every recipe, and write the table."""
    options = _options()
    recipes = [name for name in RECIPES if not options.only or name in options.only]
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        rows = [_measure(recipe, Path(folder), options.rounds) for recipe in recipes]
    tables.write(
        "compile_time",
        title="Compile time and memory",
        notes=NOTES,
        table=[_line(row) for row in rows],
        rows=rows,
        folder=options.results,
    )


def _options() -> argparse.Namespace:
    return options_of.parser(__doc__, rounds=3, of_what="timed runs of each kind").parse_args()


def _measure(recipe: str, folder: Path, rounds: int) -> dict[str, Any]:
    print(f"measuring {recipe}", file=sys.stderr)
    compiling = compile_command(recipe, folder / "model.lepton")
    exporting = export_command(recipe, folder / "model.onnx")
    # Watching costs time, so these two are not timed; they fill the page cache as well.
    exporter_peak, peak = peak_of(exporting), peak_of(compiling)
    compiled, exported = [], []
    for _ in range(rounds):
        exported.append(answer(exporting))
        compiled.append({stage["name"]: stage["seconds"] for stage in answer(compiling)["stages"]})
    ours = [_ours(stages) for stages in compiled]
    export = [stages["export"] for stages in compiled]
    weights = exported[0]["weight_bytes"]
    return {
        "recipe": recipe,
        "export_s": median(export),
        "ours_s": median(ours),
        "ratio": median(a / b for a, b in zip(ours, export, strict=True)),
        "export_alone_s": median(record["export_s"] for record in exported),
        "stages": {name: median(run[name] for run in compiled) for name in compiled[0]},
        "weight_bytes": weights,
        "peak_bytes": peak,
        "exporter_peak_bytes": exporter_peak,
        "factor": (peak - exporter_peak) / weights,
    }


def _ours(stages: dict[str, float]) -> float:
    return sum(seconds for name, seconds in stages.items() if name not in THEIRS)


def _line(row: dict[str, Any]) -> dict[str, str]:
    slowest = sorted(row["stages"], key=row["stages"].get, reverse=True)
    mine = [name for name in slowest if name not in THEIRS][:2]
    return {
        "recipe": row["recipe"],
        "export s": f"{row['export_s']:.2f}",
        "ours s": f"{row['ours_s']:.2f}",
        "ratio": f"{row['ratio']:.2f}",
        "export alone s": f"{row['export_alone_s']:.2f}",
        "most of ours": ", ".join(f"{name} {row['stages'][name]:.2f}" for name in mine),
        "weights MB": tables.megabytes(row["weight_bytes"]),
        "peak MB": tables.megabytes(row["peak_bytes"]),
        "exporter's MB": tables.megabytes(row["exporter_peak_bytes"]),
        "factor": f"{row['factor']:.2f}",
    }


if __name__ == "__main__":
    main()
