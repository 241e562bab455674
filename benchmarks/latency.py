"""Latency of each recipe: the artifact against plain ONNX Runtime on torch's own export."""

from __future__ import annotations

import argparse
import sys
from statistics import median
from typing import Any

import options as options_of
import tables
from cases import LATENCY, Case
from contenders import Files, answer, prepare, race_command
from ratios import Ratio, paired

# Answers further apart than this, relative to the largest value of an output, are not a race.
TOLERANCE = 1e-3

NOTES = """\
Milliseconds are medians. A ratio is the artifact's time divided by that of the plain export in the
same round: the median over all rounds, then the tenth and the ninetieth percentile. *Processes* is
the range of the medians of the single processes. *Control* is the plain export against itself, in
another session of the same process: a ratio is worth what it differs from the control by.
*Difference* is the largest absolute difference between the two contenders' outputs."""


def main() -> None:
    """Race every case and write the table."""
    options = _options()
    cases = [case for case in LATENCY if not options.only or case.recipe in options.only]
    files = prepare(case.recipe for case in cases)
    rows = [_measure(case, files[case.recipe], options) for case in cases]
    tables.write(
        "latency",
        title=f"Latency, {options.threads} threads",
        notes=NOTES,
        table=[_line(row) for row in rows],
        rows=rows,
        folder=options.results,
    )


def _options() -> argparse.Namespace:
    made = options_of.parser(__doc__, rounds=12, of_what="rounds in each process")
    options_of.add_threads(made)
    made.add_argument("--processes", type=int, default=4, help="processes for each case")
    return made.parse_args()


def _measure(case: Case, files: Files, options: argparse.Namespace) -> dict[str, Any]:
    print(f"measuring {case.recipe} {case.size}", file=sys.stderr)
    races = [_race(case, files, options, seed) for seed in range(options.processes)]
    worst = max(race["max_relative"] for race in races)
    if not worst <= TOLERANCE:
        raise SystemExit(f"{case.recipe} {case.size}: the outputs differ by {worst:.2g} (relative)")

    def pooled(name: str) -> list[float]:
        return [seconds for race in races for seconds in race[name]]

    medians = [paired(race["leptonc"], race["plain"]).median for race in races]
    return {
        "recipe": case.recipe,
        "size": case.size,
        "leptonc_ms": median(pooled("leptonc")) * 1e3,
        "plain_ms": median(pooled("plain")) * 1e3,
        "ratio": vars(paired(pooled("leptonc"), pooled("plain"))),
        "processes": [min(medians), max(medians)],
        "control": vars(paired(pooled("control"), pooled("plain"))),
        "max_abs": max(race["max_abs"] for race in races),
    }


def _race(case: Case, files: Files, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    paths = {"leptonc": files.artifact, "plain": files.plain, "control": files.plain}
    result = answer(
        race_command(case, paths, threads=options.threads, rounds=options.rounds, seed=seed)
    )
    return {**result["blocks"], **result["differences"]["leptonc"]}


def _line(row: dict[str, Any]) -> dict[str, str]:
    low, high = row["processes"]
    return {
        "recipe": row["recipe"],
        "batch": row["size"],
        "leptonc ms": f"{row['leptonc_ms']:.3f}",
        "plain ms": f"{row['plain_ms']:.3f}",
        "ratio": str(Ratio(**row["ratio"])),
        "processes": f"{low:.3f} to {high:.3f}",
        "control": str(Ratio(**row["control"])),
        "difference": f"{row['max_abs']:.1e}",
    }


if __name__ == "__main__":
    main()
