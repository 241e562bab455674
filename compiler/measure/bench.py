"""Measure artifacts and .onnx files against one another in one run.

Latency is measured with the contenders interleaved in this process, so that a change in the
machine's load meets all of them. Each round shuffles them and lets each answer a short block
of calls whose first is not timed: it wakes that contender's threads and caches while those of
the previous one go to sleep. Ratios are medians over the rounds of paired block medians.
Load time and memory are measured in a process per contender (`leptonc.compiler.measure.cold_start`).
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np

from leptonc.compiler.measure import cold_start
from leptonc.compiler.measure.bench_report import BenchReport, Measured
from leptonc.compiler.measure.contenders import Contender, open_contender, synthesize
from leptonc.runtime.arrays import Arrays, load_arrays, save_arrays
from leptonc.runtime.errors import EngineError, InputError
from leptonc.runtime.inputs import check_inputs

# Timed calls in one block; one further call before them is not timed.
BLOCK = 5
# Cold starts per contender; the median is reported.
STARTS = 3


def run_bench(
    paths: Sequence[Path | str],
    *,
    inputs: Path | str | None = None,
    threads: int | None = None,
    iterations: int = 50,
    warmup: int = 5,
    shapes: Mapping[str, int] | None = None,
    seed: int = 0,
) -> BenchReport:
    """Race the files in `paths`; the first is what the others are compared with.

    Args:
        paths: .lepton and .onnx files with the same input names.
        inputs: An .npz file with one array per input, or None to make some.
        threads: Engine threads, or None for the engine's choice.
        iterations: Timed calls per contender, rounded up to whole blocks of 5.
        warmup: Calls before the first round, not timed.
        shapes: Sizes of dynamic dimensions by name, for inputs that are made.
        seed: Of the inputs that are made and of the order in each round.

    Raises:
        InputError: Nothing to measure, a file that is missing or of another kind, arrays that
            do not fit, or contenders with different inputs.
        LeptonError: What the runtime or the engine has against a file.
    """
    _check_settings(paths, inputs, threads, iterations, warmup, made=bool(shapes))
    with ExitStack() as stack:
        contenders = []
        for path in paths:
            contender = open_contender(Path(path), threads)
            stack.callback(contender.close)
            contenders.append(contender)
        _check_same_inputs(contenders)
        signature = contenders[0].signature
        arrays = load_arrays(Path(inputs)) if inputs else synthesize(signature, shapes or {}, seed)
        for contender in contenders:
            arrays, _ = check_inputs(contender.signature, arrays)
        blocks = _race(contenders, arrays, iterations, warmup, random.Random(seed))
    starts = _cold_starts([c.path for c in contenders], arrays, threads)
    return BenchReport(
        inputs={name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()},
        synthetic=inputs is None,
        threads=threads,
        iterations=len(blocks[0]) * BLOCK,
        seed=seed,
        rows=tuple(
            _summarize(str(path), contender.kind, block, blocks[0], start)
            for path, contender, block, start in zip(paths, contenders, blocks, starts, strict=True)
        ),
    )


def _check_settings(
    paths: Sequence[Path | str],
    inputs: Path | str | None,
    threads: int | None,
    iterations: int,
    warmup: int,
    *,
    made: bool,
) -> None:
    if not paths:
        raise InputError("there is nothing to measure", fix="name .lepton or .onnx files")
    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads cannot run anything", fix="ask for at least 1 thread")
    if iterations < 1 or warmup < 0:
        raise InputError(
            f"{iterations} iterations after {warmup} warm-up calls cannot be measured",
            fix="ask for at least 1 iteration and at least 0 warm-up calls",
        )
    if inputs is not None and made:
        raise InputError(
            "shapes were given beside an .npz file, whose arrays already have shapes",
            fix="leave one of the two out",
        )


def _check_same_inputs(contenders: Sequence[Contender]) -> None:
    first, *others = contenders
    wanted = {spec.name for spec in first.signature.inputs}
    for other in others:
        names = {spec.name for spec in other.signature.inputs}
        if names != wanted:
            raise InputError(
                f"its inputs are {', '.join(sorted(names))}; those of {first.path} are "
                f"{', '.join(sorted(wanted))}",
                where=str(other.path),
                fix="measure files that take the same inputs, or measure them one by one",
            )


def _race(
    contenders: Sequence[Contender],
    arrays: Arrays,
    iterations: int,
    warmup: int,
    chance: random.Random,
) -> list[list[list[float]]]:
    """Return the seconds of each call: one list of blocks per contender, aligned by round."""
    for contender in contenders:
        for _ in range(warmup):
            contender.run(arrays)
    blocks: list[list[list[float]]] = [[] for _ in contenders]
    order = list(range(len(contenders)))
    for _ in range(-(-iterations // BLOCK)):
        chance.shuffle(order)
        for index in order:
            blocks[index].append(_block(contenders[index], arrays))
    return blocks


def _block(contender: Contender, arrays: Arrays) -> list[float]:
    contender.run(arrays)
    seconds = []
    for _ in range(BLOCK):
        began = time.perf_counter()
        contender.run(arrays)
        seconds.append(time.perf_counter() - began)
    return seconds


def _cold_starts(
    paths: Sequence[Path], arrays: Arrays, threads: int | None
) -> list[dict[str, float | None]]:
    """Start each file `STARTS` times in new processes, interleaved; return the medians."""
    records: list[list[dict[str, float | None]]] = [[] for _ in paths]
    with tempfile.TemporaryDirectory() as folder:
        feed = Path(folder) / "inputs.npz"
        save_arrays(feed, {name: _plain(array) for name, array in arrays.items()})
        for _ in range(STARTS):
            for index, path in enumerate(paths):
                records[index].append(_cold_start(path, feed, threads))
    return [{key: _median([record[key] for record in each]) for key in each[0]} for each in records]


def _plain(array: np.ndarray) -> np.ndarray:
    """Text in object arrays would have to be pickled; as NumPy's own text it is not."""
    return array.astype(str) if array.dtype.kind == "O" else array


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _cold_start(path: Path, feed: Path, threads: int | None) -> dict[str, float | None]:
    done = cold_start.start(path.resolve(), feed, threads or 0)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EngineError(
            f"it works here but not in a new process (exit status {done.returncode}): {last}",
            where=str(path),
            fix="check that there is memory for two copies of the model",
        )
    record: dict[str, float | None] = json.loads(done.stdout)
    return record


def _summarize(
    path: str,
    kind: str,
    blocks: list[list[float]],
    first: list[list[float]],
    start: Mapping[str, float | None],
) -> Measured:
    calls = [seconds for block in blocks for seconds in block]
    p50, p90, p99 = (float(value) * 1e3 for value in np.percentile(calls, (50, 90, 99)))
    resident, private = start["resident_bytes"], start["private_bytes"]
    return Measured(
        path=path,
        kind=kind,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        per_second=len(calls) / sum(calls),
        ratio=median(median(a) / median(b) for a, b in zip(blocks, first, strict=True)),
        load_ms=(start["load_s"] or 0.0) * 1e3,
        first_ms=(start["first_s"] or 0.0) * 1e3,
        resident_bytes=None if resident is None else int(resident),
        private_bytes=None if private is None else int(private),
    )
