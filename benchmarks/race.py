"""One race in a process of its own: `ARTIFACT PLAIN.onnx RECIPE BATCH SEQUENCE THREADS ROUNDS SEED`.

Three contenders answer in turn: the artifact on leptonc's runtime, the plain export on ONNX
Runtime, and the plain export once more in a session of its own, as a control: what the last two
differ by is noise. Each turn begins with calls that are not timed, because the threads of the
contender before still spin for a while. Prints one line of JSON: for each contender the median
seconds of a call in each round, and how far the outputs are from those of the plain export.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np
from cases import Case, arrays

SETTLE_S = 0.05
BLOCK_S = 0.1
BLOCK_CALLS = 3

Run = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


def main(artifact: Path, plain: Path, case: Case, *, threads: int, rounds: int, seed: int) -> None:
    """Open the contenders, compare their answers, time them."""
    opening: dict[str, Callable[[], Run]] = {
        "leptonc": lambda: _open_artifact(artifact, threads),
        "plain": lambda: _open_plain(plain, threads),
        "control": lambda: _open_plain(plain, threads),
    }
    chance = random.Random(seed)
    # The order of opening decides where the weights lie in memory.
    runs = {name: opening[name]() for name in chance.sample(list(opening), len(opening))}
    feed = arrays(case)
    difference = _difference(runs["leptonc"](feed), runs["plain"](feed))
    for run in runs.values():
        _block(run, feed)
    blocks: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name in chance.sample(list(runs), len(runs)):
            blocks[name].append(_block(runs[name], feed))
    print(json.dumps({**blocks, **difference}))


def _open_artifact(path: Path, threads: int) -> Run:
    from leptonc.runtime import load

    session = load(path, threads=threads, eager=True)
    return lambda feed: list(session.run(feed).values())


def _open_plain(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda feed: list(session.run(None, feed))


def _block(run: Run, feed: Mapping[str, np.ndarray]) -> float:
    began = time.perf_counter()
    run(feed)
    while time.perf_counter() - began < SETTLE_S:
        run(feed)
    calls: list[float] = []
    while len(calls) < BLOCK_CALLS or sum(calls) < BLOCK_S:
        began = time.perf_counter()
        run(feed)
        calls.append(time.perf_counter() - began)
    return median(calls)


def _difference(found: list[np.ndarray], expected: list[np.ndarray]) -> dict[str, float]:
    """Return the largest difference, and the largest relative to its output's largest value."""
    pairs = list(zip(found, expected, strict=True))
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        raise SystemExit("the contenders' outputs have different shapes or dtypes")
    errors = [float(np.abs(a - b).max()) for a, b in pairs]
    scales = [float(np.abs(b).max()) for _, b in pairs]
    relative = max(error / scale for error, scale in zip(errors, scales, strict=True))
    return {"max_abs": max(errors), "max_relative": relative}


if __name__ == "__main__":
    _batch, _sequence, _threads, _rounds, _seed = (int(text) for text in sys.argv[4:])
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        Case(sys.argv[3], _batch, _sequence),
        threads=_threads,
        rounds=_rounds,
        seed=_seed,
    )
