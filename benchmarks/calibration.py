"""Calibration of BERT-base against plain inference of the same samples: time and memory."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import options as options_of
import tables
from cases import Case, arrays
from contenders import ROOT

from leptonc.compiler.calibration.observe import observe_ranges
from leptonc.compiler.console.progress import Steps
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.settings.resolve import resolve_settings
from leptonc.compiler.subject import open_and_export
from leptonc.passes.ranges.table import Ranges
from leptonc.passes.schedule import CANONICAL, optimize

CASE = Case("bert_base", 1, 128)
# Until the engine has packed its weights, and for both alike.
WARM_UP = 8

NOTES = """\
One process. In each round the samples go one by one through the graph without further outputs
(*plain*), and then through `leptonc calibrate`'s own loop, which also writes down what every tensor
holds; both on ONNX Runtime with every core. Seconds are for all samples of a round, from the ninth on.
*entropy* is the time to get the entropy range of every tensor from the table, once for the whole run;
*ratio* counts it in. *Memory* is the largest resident size while calibrating, above that after the
first sample, when model and session are loaded; *table* is what the histograms hold."""


def main() -> None:
    """Measure, and write the table."""
    options = _options()
    settings = resolve_settings(str(ROOT / "models" / f"{CASE.recipe}.py"), {})
    subject = open_and_export(settings, Steps())
    optimize(subject.model, target="ort-cpu", upto=CANONICAL)
    plain = GraphRunner(subject.model, optimised=True)
    seconds: dict[str, list[float]] = {"plain": [], "calibrate": []}
    memory = 0
    ranges: Ranges | None = None
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            data = Path(folder) / f"{number}.npz"
            _write(data, options.samples, number)
            seconds["plain"].append(_plain(plain, data, options.samples))
            watch = _Watch()
            found = observe_ranges(subject.model, subject.source, data=str(data), report=watch)
            seconds["calibrate"].append(watch.seconds)
            memory = max(memory, watch.memory)
            ranges = found if ranges is None else ranges.plus(found)
    assert ranges is not None
    row = {
        "recipe": CASE.recipe,
        "samples": ranges.samples,
        "tensors": len(ranges.tensors),
        "seconds": seconds,
        "entropy_s": _entropy(ranges),
        "memory_bytes": memory,
    }
    tables.write(
        "calibration",
        title="Calibration",
        notes=NOTES,
        table=[_line(row)],
        rows=[row],
        folder=options.results,
    )


def _options() -> argparse.Namespace:
    made = options_of.parser(__doc__, rounds=4, of_what="rounds, each with samples of its own")
    made.add_argument("--samples", type=int, default=128, help="in each round")
    return made.parse_args()


def _write(path: Path, samples: int, seed: int) -> None:
    np.savez(path, **arrays(Case(CASE.recipe, samples, CASE.sequence), seed))  # type: ignore[arg-type]


def _plain(run: GraphRunner, data: Path, samples: int) -> float:
    print(f"plain inference of {samples} samples", file=sys.stderr)
    started = 0.0
    with np.load(data) as whole:
        inputs = {name: whole[name] for name in whole.files}
    for index in range(samples):
        if index == WARM_UP:
            started = time.perf_counter()
        run({name: array[index : index + 1] for name, array in inputs.items()})
    return time.perf_counter() - started


class _Watch:
    """Notes the time and the memory after each sample."""

    def __init__(self) -> None:
        print("calibration", file=sys.stderr)
        self._started = 0.0
        self._loaded = 0
        self.seconds = 0.0
        self.memory = 0

    def __call__(self, done: int, share: float | None) -> None:
        del share
        if done == 1:
            self._loaded = _resident()
        if done == WARM_UP:
            self._started = time.perf_counter()
        self.seconds = time.perf_counter() - self._started
        self.memory = max(self.memory, _resident() - self._loaded)


def _resident() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this benchmark needs Linux")


def _entropy(ranges: Ranges) -> float:
    started = time.perf_counter()
    for name in ranges.tensors:
        ranges.range(name, "entropy")
    return time.perf_counter() - started


def _line(row: dict[str, Any]) -> dict[str, str]:
    plain, ours = row["seconds"]["plain"], row["seconds"]["calibrate"]
    each = row["entropy_s"] / len(ours)
    ratios = [(b + each) / a for a, b in zip(plain, ours, strict=True)]
    return {
        "recipe": row["recipe"],
        "samples": str(row["samples"]),
        "tensors": str(row["tensors"]),
        "plain s": f"{median(plain):.1f}",
        "calibrate s": f"{median(ours):.1f}",
        "entropy s": f"{row['entropy_s']:.1f}",
        "ratio": f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
        "memory MB": tables.megabytes(row["memory_bytes"]),
        "table MB": tables.megabytes(row["tensors"] * (1 << 19)),
    }


if __name__ == "__main__":
    main()
