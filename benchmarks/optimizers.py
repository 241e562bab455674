"""Graph optimisers against one another: latency, nodes, time and memory of optimising.

Every model is measured as soon as it is optimised, and kept: a run that is stopped goes on where it
was, as long as neither leptonc nor the recipes change.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import numpy as np
import onnx
import options as options_of
import tables
from cases import OPTIMIZERS, Case
from contenders import HERE, WORK, our_folder, pooled_races, prepare
from ratios import Ratio, paired

TRANSFORMERS = ("bert_base", "minilm", "vit_base", "t5_encoder", "gpt2")
# Those that hold the graph as an onnx-ir model take its weights from a file beside it.
BY_REFERENCE = ("leptonc", "ort_fusions")
PEERS = ("onnxsim", "onnxslim", "transformers", "transformers-no-skip", "ort_fusions")
# What decides is the first one: the file that leptonc makes, on the runtime that loads it.
OURS = ("leptonc", "leptonc-graph")
# Answers further apart than this, relative to the largest value of an output, are not a race.
TOLERANCE = 1e-3
LEAST_ROUNDS = 3

NOTES = """\
All optimisers start from the same graph: torch's export. *leptonc* is the artifact on its own
runtime; *leptonc-graph* is our optimised graph on plain ONNX Runtime, where every other graph runs
too, at its default level of optimisation: *plain* is the export itself, *control* the export once
more. *transformers* is onnxruntime.transformers' optimiser with the type, heads and width of the
model, after the engine's own fusions (its level 2); *-no-skip* the same without them and without
SkipLayerNormalization (level 1); *ort_fusions* is that of onnxscript.

A ratio is leptonc's time divided by that of the other in the same round: the median over all
rounds, then the tenth and the ninetieth percentile; below 1 leptonc is faster. The *best peer* is
the one of plain and all peers against which that median is highest. All contenders of a row ran in turns in one
process, of which there were several. Nodes are those of the graph, its subgraphs and functions,
without constants. Seconds are medians, from the graph in memory to the graph in memory. Memory is
the peak of the process beyond its libraries; *factor* is that divided by the weights. Contenders
that failed, or whose answers differ from those of the export, are named with the reason."""


def main() -> None:
    """Measure what is not yet measured, and write the tables."""
    options = _options()
    cases = [case for case in OPTIMIZERS if not options.only or case.recipe in options.only]
    rows = [
        _kept(recipe, list(group), options)
        for recipe, group in groupby(cases, key=lambda case: case.recipe)
    ]
    tables.write(
        "optimizers",
        title=f"Graph optimisers, {options.threads} threads",
        notes="\n\n".join([_summary(rows), NOTES]),
        table=[_latency_line(race, row["recipe"]) for row in rows for race in row["races"]],
        rows=rows,
        more={
            "Milliseconds": [
                _ms_line(race, row["recipe"]) for row in rows for race in row["races"]
            ],
            "Nodes": [_nodes_line(row) for row in rows],
            "Optimising": [_cost_line(row) for row in rows],
            "Failures": [_failure_line(row) for row in rows],
        },
        folder=options.results,
    )


def _options() -> argparse.Namespace:
    made = options_of.parser(__doc__, rounds=40, of_what="rounds in each process, at most")
    options_of.add_threads(made)
    made.add_argument("--seconds", type=float, default=25, help="of racing in each process")
    made.add_argument("--processes", type=int, default=2, help="processes for each case")
    made.add_argument("--tries", type=int, default=2, help="runs of each optimiser")
    made.add_argument("--again", action="store_true", help="measure again what was measured")
    return made.parse_args()


def _kept(recipe: str, cases: Sequence[Case], options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a recipe, from an earlier run if there are any."""
    budget = (options.threads, options.rounds, options.seconds, options.processes, options.tries)
    key = "-".join(f"{each:g}" for each in budget)
    path = our_folder() / f"optimizers-{recipe}-{key}.json"
    if path.is_file() and not options.again:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    row = _measure(recipe, cases, options)
    path.write_text(json.dumps(row), encoding="utf-8")
    return row


def _measure(recipe: str, cases: Sequence[Case], options: argparse.Namespace) -> dict[str, Any]:
    files = prepare([recipe])[recipe]
    print(f"optimising {recipe}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=WORK) as scratch:
        folder = Path(scratch)
        beside = _with_data_beside(files.plain, folder)
        tried: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.tries):
            for tool in ("plain", "leptonc", *PEERS):
                source = beside if tool in BY_REFERENCE else files.plain
                # A tool that failed once has nothing more to say.
                if "failure" not in tried.get(tool, [{}])[-1]:
                    tried.setdefault(tool, []).append(_optimize(tool, source, folder, recipe))
        outcomes = {tool: _outcome(tool, tries, folder) for tool, tries in tried.items()}
        paths = {"leptonc": files.artifact, "plain": files.plain, "control": files.plain}
        for tool, outcome in outcomes.items():
            if "failure" not in outcome and tool != "plain":
                paths["leptonc-graph" if tool == "leptonc" else tool] = folder / f"{tool}.onnx"
        races = [_race(case, paths, options) for case in cases]
    return {"recipe": recipe, "optimizers": outcomes, "races": races}


def _with_data_beside(path: Path, folder: Path) -> Path:
    """Write a copy of an .onnx file whose weights are in a file of their own."""
    target = folder / "source.onnx"
    onnx.save_model(
        onnx.load(str(path)), str(target), save_as_external_data=True, location="source.data"
    )
    return target


def _optimize(tool: str, source: Path, folder: Path, recipe: str) -> dict[str, Any]:
    target = folder / f"{tool}.onnx"
    # The writer of onnx-ir appends to a file of weights that is there.
    for old in (target, folder / f"{tool}.onnx.data"):
        old.unlink(missing_ok=True)
    script = str(HERE / "optimize_with.py")
    command = [sys.executable, script, tool, str(source), str(target), recipe]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failure": lines[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _outcome(tool: str, tries: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """Sum the runs of an optimiser up; one whose graph answers wrongly has failed too."""
    last = dict(tries[-1])
    if "failure" not in last:
        difference = _difference(folder / f"{tool}.npz", folder / "plain.npz")
        if not difference <= TOLERANCE:
            last = {"failure": f"its answers differ by {difference:.2g} (relative)"}
    if "failure" in last:
        if tool in ("plain", "leptonc"):
            raise SystemExit(f"{tool} fails: {last['failure']}")
        return last
    return {
        **last,
        "seconds": median(each["seconds"] for each in tries),
        "peak_bytes": median(each["peak_bytes"] for each in tries),
    }


def _difference(found: Path, expected: Path) -> float:
    """Return the largest difference, relative to the largest value of its output."""
    with np.load(found) as ours, np.load(expected) as theirs:
        pairs = [(ours[name], theirs[name]) for name in theirs.files]
        if any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
            return math.inf
        return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def _race(case: Case, paths: Mapping[str, Path], options: argparse.Namespace) -> dict[str, Any]:
    print(f"racing {case.recipe} {case.size}: {', '.join(paths)}", file=sys.stderr)
    pooled, races = pooled_races(case, paths, options, least_rounds=LEAST_ROUNDS)
    ratios = {
        name: vars(paired(pooled["leptonc"], pooled[name])) for name in paths if name != "leptonc"
    }
    peers = [name for name in paths if name not in (*OURS, "control")]
    return {
        "size": case.size,
        "ms": {name: median(seconds) * 1e3 for name, seconds in pooled.items()},
        "ratios": ratios,
        "control": vars(paired(pooled["control"], pooled["plain"])),
        "best_peer": max(peers, key=lambda name: ratios[name]["median"]),
        "rounds": len(pooled["plain"]),
        "differences": {name: races[0]["differences"][name]["max_relative"] for name in paths},
    }


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what the rows come to."""
    races = [(row["recipe"], race) for row in rows for race in row["races"]]
    best = {
        (recipe, race["size"]): race["ratios"][race["best_peer"]]["median"]
        for recipe, race in races
    }
    lines = [f"Worst ratio to the best peer: {max(best.values()):.3f}."]
    mine = [ratio for (recipe, _), ratio in best.items() if recipe in TRANSFORMERS]
    if mine:
        lines.append(f"Geometric mean over the transformers: {geometric_mean(mine):.3f}.")
    return " ".join(lines)


def _latency_line(race: Mapping[str, Any], recipe: str) -> dict[str, str]:
    best = race["best_peer"]
    ratios = {name: Ratio(**found) for name, found in race["ratios"].items()}
    return {
        "recipe": recipe,
        "batch": race["size"],
        "best peer": best,
        "leptonc / best peer": str(ratios[best]),
        "/ plain": f"{ratios['plain'].median:.3f}",
        **{
            f"/ {name}": f"{ratios[name].median:.3f}" if name in ratios else "failed"
            for name in (*PEERS, "leptonc-graph")
        },
        "control": str(Ratio(**race["control"])),
    }


def _ms_line(race: Mapping[str, Any], recipe: str) -> dict[str, str]:
    names = (*OURS, "plain", *PEERS)
    found = {name: race["ms"].get(name, math.nan) for name in names}
    return {
        "recipe": recipe,
        "batch": race["size"],
        **{name: "failed" if math.isnan(ms) else f"{ms:.2f}" for name, ms in found.items()},
        "rounds": str(race["rounds"]),
    }


def _nodes_line(row: Mapping[str, Any]) -> dict[str, str]:
    found = {name: row["optimizers"][name] for name in ("leptonc", "plain", *PEERS)}
    return {
        "recipe": row["recipe"],
        **{name: str(each.get("nodes", "failed")) for name, each in found.items()},
    }


def _cost_line(row: Mapping[str, Any]) -> dict[str, str]:
    weights = row["optimizers"]["plain"]["weight_bytes"]
    line = {"recipe": row["recipe"], "weights MB": tables.megabytes(weights)}
    ours = row["optimizers"]["leptonc"]
    for name in ("leptonc", "onnxslim", "onnxsim"):
        found = row["optimizers"][name]
        if "failure" in found:
            line |= {f"{name} s": "failed", f"{name} peak MB": "failed"}
            continue
        line[f"{name} s"] = f"{found['seconds']:.2f}"
        if name != "leptonc":
            line[f"time / {name}"] = f"{ours['seconds'] / found['seconds']:.3f}"
        line[f"{name} peak MB"] = tables.megabytes(found["peak_bytes"])
        if name == "leptonc":
            line["factor"] = f"{found['peak_bytes'] / weights:.2f}"
        line[f"{name} weights MB"] = tables.megabytes(found["weight_bytes"])
    return line


def _failure_line(row: Mapping[str, Any]) -> dict[str, str]:
    reasons = [
        f"{name}: {outcome['failure']}"
        for name, outcome in row["optimizers"].items()
        if "failure" in outcome
    ]
    return {"recipe": row["recipe"], "failed": "; ".join(reasons).replace("|", "/") or "none"}


if __name__ == "__main__":
    main()
