"""A new process until its first answer: the artifact against plain ONNX Runtime on one .onnx file.

Time runs from before the process is started until it has answered: the interpreter, the imports,
loading with every hash checked, the first call. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import options as options_of
import tables
from cases import COLD_LOAD, Case, arrays
from contenders import HERE, Files, prepare
from ratios import Ratio, paired

MEASURES = ("seconds", "resident", "peak", "private")

NOTES = """\
Seconds run from before the process is started until it has answered, with every hash of the
artifact checked, and the files in the page cache. Memory is that of the process after its first
answer in MB of 1,000,000 bytes: resident (VmRSS), at its peak (VmHWM), and private (RssAnon: what a
second process would need again). A ratio is the artifact's figure divided by that of the plain
export in the same round: the median, then the tenth and the ninetieth percentile. *Control* is the
plain export against itself."""


def main() -> None:
    """Start every case again and again, and write the table."""
    options = _options()
    cases = [case for case in COLD_LOAD if not options.only or case.recipe in options.only]
    files = prepare(case.recipe for case in cases)
    rows = [_measure(case, files[case.recipe], options) for case in cases]
    tables.write(
        "cold_load",
        title=f"Cold load, {options.threads} threads",
        notes=NOTES,
        table=[_line(row) for row in rows],
        rows=rows,
        folder=options.results,
    )


def _options() -> argparse.Namespace:
    made = options_of.parser(__doc__, rounds=15, of_what="starts of each contender")
    options_of.add_threads(made)
    return made.parse_args()


def _measure(case: Case, files: Files, options: argparse.Namespace) -> dict[str, Any]:
    print(f"measuring {case.recipe}", file=sys.stderr)
    chance = random.Random(0)
    paths = {"leptonc": files.artifact, "plain": files.plain, "control": files.plain}
    starts: dict[str, list[dict[str, Any]]] = {name: [] for name in paths}
    with tempfile.TemporaryDirectory() as folder:
        feed = Path(folder) / "inputs.npz"
        np.savez(feed, allow_pickle=False, **arrays(case))
        for path in (files.artifact, files.plain):
            _start(path, feed, options.threads)
        for _ in range(options.rounds):
            for name in chance.sample(list(paths), len(paths)):
                starts[name].append(_start(paths[name], feed, options.threads))
    _check_answers(case, starts)
    row: dict[str, Any] = {"recipe": case.recipe, "size": case.size}
    for measure in MEASURES:
        taken = {name: [start[measure] for start in each] for name, each in starts.items()}
        row[measure] = {
            **{name: median(values) for name, values in taken.items()},
            "ratio": vars(paired(taken["leptonc"], taken["plain"])),
            "control_ratio": vars(paired(taken["control"], taken["plain"])),
        }
    return row


def _start(path: Path, feed: Path, threads: int) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "cold_start.py"), str(path), str(feed), str(threads)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            raise SystemExit("the process has no output")
        ready = process.stdout.readline().strip()
        seconds = time.perf_counter() - began
        rest = process.stdout.read()
    if process.returncode != 0 or ready != "ready":
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
    return {"seconds": seconds, **json.loads(rest)}


def _check_answers(case: Case, starts: dict[str, list[dict[str, Any]]]) -> None:
    expected = starts["plain"][0]["checksums"]
    for each in starts.values():
        for start in each:
            pairs = list(zip(start["checksums"], expected, strict=True))
            if not all(math.isclose(a, b, rel_tol=1e-3) for a, b in pairs):
                raise SystemExit(f"{case.recipe}: the contenders' answers differ: {pairs}")


def _line(row: dict[str, Any]) -> dict[str, str]:
    seconds = row["seconds"]
    line = {
        "recipe": row["recipe"],
        "leptonc s": f"{seconds['leptonc']:.3f}",
        "plain s": f"{seconds['plain']:.3f}",
        "time ratio": str(Ratio(**seconds["ratio"])),
        "control": str(Ratio(**seconds["control_ratio"])),
    }
    for measure in MEASURES[1:]:
        found = row[measure]
        amounts = " / ".join(tables.megabytes(found[name]) for name in ("leptonc", "plain"))
        line[f"{measure} MB"] = f"{amounts} = {found['ratio']['median']:.2f}"
    return line


if __name__ == "__main__":
    main()
