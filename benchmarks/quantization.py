"""INT8 of leptonc against the quantisers of ONNX Runtime: latency, SQNR, size, time to make.

Every model is measured as soon as its contenders are made, and kept: a run that is stopped goes on
where it was, as long as neither leptonc nor the recipes change.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import options as options_of
import tables
from cases import QUANTIZATION, Case, arrays
from contenders import HERE, ROOT, our_folder, pooled_races, prepare
from quantize_with import OPTIMISED, PEERS
from race import NO_SKIP
from ratios import Ratio, paired

CALIBRATION, HELD_OUT = 16, 8
LEAST_ROUNDS = 3
# Peers within this part of our time count as equally fast.
AS_FAST = 1.02

NOTES = """\
All start from torch's export of the same weights and get the same calibration data; SQNR is that
of the first output over other data, against the export in float. The recipe's own data are used
where it has some, the last third of them held out; the others have random weights, and get seeded
noise. *ratio* is the time of a contender divided by that of the float export on plain ONNX Runtime
in the same round: the median over all rounds, then the tenth and the ninetieth percentile. *leptonc*
is `leptonc compile -p int8` without further options, on its own runtime. The others are
onnxruntime.quantization: dynamic by channel and by tensor, static (U8 activations, S8 weights by
channel; QDQ with min-max and entropy, QOperator format, MatMul and Gemm alone), and dynamic after
onnxruntime.transformers' optimiser; *no-skip* is without the fusion of SkipLayerNormalization.
*SQNR at our speed* is the best SQNR of the peers that take at most 1.02 of our time. neural-compressor
has no part in this: its releases since 3.0 take no ONNX (3.10 has no module for it)."""


def main() -> None:
    """Measure what is not yet measured, and write the tables."""
    options = _options()
    cases = [case for case in QUANTIZATION if not options.only or case.recipe in options.only]
    rows = [_kept(case, options) for case in cases]
    tables.write(
        "quantization",
        title=f"INT8, {options.threads} threads",
        notes=NOTES,
        table=[_summary_line(row) for row in rows],
        rows=rows,
        more={"Contenders": [line for row in rows for line in _contender_lines(row)]},
        folder=options.results,
    )


def _options() -> argparse.Namespace:
    made = options_of.parser(__doc__, rounds=40, of_what="rounds in each process, at most")
    options_of.add_threads(made)
    made.add_argument("--seconds", type=float, default=25, help="of racing in each process")
    made.add_argument("--processes", type=int, default=2, help="processes for each case")
    made.add_argument("--again", action="store_true", help="measure again what was measured")
    return made.parse_args()


def _kept(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a case, from an earlier run if there are any."""
    budget = (options.threads, options.rounds, options.seconds, options.processes)
    key = "-".join(f"{each:g}" for each in budget)
    path = our_folder() / f"quantization-{case.recipe}-{key}.json"
    if path.is_file() and not options.again:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    row = _measure(case, options)
    path.write_text(json.dumps(row), encoding="utf-8")
    return row


def _measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    files = prepare([case.recipe])[case.recipe]
    folder = our_folder() / f"quantized-{case.recipe}"
    folder.mkdir(exist_ok=True)
    _write_data(case, folder)
    made: dict[str, dict[str, Any]] = {}
    paths = {"plain": files.plain, "control": files.plain}
    for tool in ("plain", "leptonc", *PEERS):
        ending = ".lepton" if tool == "leptonc" else NO_SKIP if tool == OPTIMISED else ".onnx"
        target = folder / f"{tool}{ending}"
        made[tool] = _quantize(tool, files.plain, target, folder, case.recipe)
        if "failure" in made[tool]:
            if tool in ("plain", "leptonc"):
                raise SystemExit(f"{tool} fails: {made[tool]['failure']}")
            continue
        made[tool]["sqnr_db"] = _sqnr(folder, tool)
        if tool != "plain":
            paths[tool] = target
    if "ort-dynamic" in paths and case.sequence:
        again = folder / f"ort-dynamic{NO_SKIP}"
        again.unlink(missing_ok=True)
        again.hardlink_to(paths["ort-dynamic"])
        paths["ort-dynamic-no-skip"] = again
        made["ort-dynamic-no-skip"] = made["ort-dynamic"]
    return {"recipe": case.recipe, "size": case.size, "made": made, **_race(case, paths, options)}


def _write_data(case: Case, folder: Path) -> None:
    """Write calibration data and other data, the same each time."""
    for old in folder.glob("*.npz"):
        old.unlink()
    batches = list(_batches(case))
    kept = len(batches) * 2 // 3
    for index, batch in enumerate(batches):
        name = f"calibration-{index:03}" if index < kept else f"held-out-{index:03}"
        np.savez(folder / f"{name}.npz", **batch)  # type: ignore[arg-type]


def _batches(case: Case) -> Iterator[Mapping[str, np.ndarray[Any, Any]]]:
    entry = str(ROOT / "models")
    sys.path.insert(0, entry)
    try:
        recipe = importlib.import_module(case.recipe)
        # Recipes with random weights have random data, of which the case says how much.
        if hasattr(recipe, "evaluate"):
            yield from recipe.calibration_data()
            return
    finally:
        sys.path.remove(entry)
    one = Case(case.recipe, 1, case.sequence)
    for seed in range(1, CALIBRATION + HELD_OUT + 1):
        yield arrays(one, seed)


def _quantize(tool: str, source: Path, target: Path, folder: Path, recipe: str) -> dict[str, Any]:
    print(f"quantising {recipe} with {tool}", file=sys.stderr)
    target.unlink(missing_ok=True)
    script = str(HERE / "quantize_with.py")
    command = [sys.executable, script, tool, str(source), str(target), str(folder), recipe]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failure": lines[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _sqnr(folder: Path, tool: str) -> float | None:
    """Return the SQNR of the first output over all held-out data, in dB; None when equal."""
    with (
        np.load(folder / "plain.answers.npz") as right,
        np.load(folder / f"{tool}.answers.npz") as found,
    ):
        signal = noise = 0.0
        for name in right.files:
            if name.endswith("-0"):
                exact = right[name].astype(np.float64)
                signal += float(np.sum(exact**2))
                noise += float(np.sum((exact - found[name]) ** 2))
    return 10.0 * math.log10(signal / noise) if noise > 0 else None


def _race(case: Case, paths: Mapping[str, Path], options: argparse.Namespace) -> dict[str, Any]:
    print(f"racing {case.recipe} {case.size}: {', '.join(paths)}", file=sys.stderr)
    pooled, _ = pooled_races(case, paths, options, least_rounds=LEAST_ROUNDS)
    return {
        "ms": {name: median(seconds) * 1e3 for name, seconds in pooled.items()},
        "ratios": {name: vars(paired(pooled[name], pooled["plain"])) for name in paths},
        "to_us": {name: vars(paired(pooled["leptonc"], pooled[name])) for name in paths},
        "rounds": len(pooled["plain"]),
    }


def _peers(row: Mapping[str, Any]) -> list[str]:
    return [name for name in row["ratios"] if name not in ("plain", "control", "leptonc")]


def _summary_line(row: Mapping[str, Any]) -> dict[str, str]:
    peers = _peers(row)
    fastest = min(peers, key=lambda name: float(row["ratios"][name]["median"]), default="none")
    ours = row["made"]["leptonc"]
    as_fast = [
        row["made"][name]["sqnr_db"]
        for name in peers
        if 1.0 / row["to_us"][name]["median"] <= AS_FAST
    ]
    versus = str(Ratio(**row["to_us"][fastest])) if peers else "no peer"
    return {
        "recipe": row["recipe"],
        "size": row["size"],
        "leptonc / float": str(Ratio(**row["ratios"]["leptonc"])),
        "SQNR dB": _db(ours["sqnr_db"]),
        "fastest peer": fastest,
        "leptonc / fastest peer": versus,
        "its SQNR dB": _db(row["made"][fastest]["sqnr_db"]) if peers else "",
        "SQNR at our speed": _db(max(as_fast)) if as_fast else "none is as fast",
        "MB / float": f"{ours['bytes'] / row['made']['plain']['bytes']:.3f}",
        "control": str(Ratio(**row["ratios"]["control"])),
    }


def _contender_lines(row: Mapping[str, Any]) -> Sequence[dict[str, str]]:
    lines: list[dict[str, str]] = []
    for name, made in row["made"].items():
        failed = made.get("failure")
        ratio = row["ratios"].get(name)
        lines.append(
            {
                "recipe": row["recipe"],
                "contender": name,
                "ms": f"{row['ms'][name]:.2f}" if ratio else "",
                "ratio": str(Ratio(**ratio)) if ratio else "",
                "SQNR dB": "" if failed else _db(made["sqnr_db"]),
                "MB": "" if failed else tables.megabytes(made["bytes"]),
                "made in s": "" if failed else f"{made['seconds']:.1f}",
                "failed": (failed or "").replace("|", "/"),
            }
        )
    return lines


def _db(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()
