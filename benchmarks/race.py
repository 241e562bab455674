"""One race in a process of its own: its argument is JSON, see `race_command` in `contenders.py`.

Contenders answer in turn: artifacts on leptonc's runtime, .onnx files on ONNX Runtime. A file may
take part twice, each time in a session of its own: what the two differ by is noise. Each turn
begins with calls that are not timed, because the threads of the contender before still spin for a
while. The race ends after its rounds, or with the first round that ends after its seconds. Prints
one line of JSON: for each contender the median seconds of a call in each round, and how far its
outputs are from those of the contender called plain.
"""

from __future__ import annotations

import gc
import json
import math
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from cases import Case, arrays

SETTLE_S = 0.05
BLOCK_S = 0.1
NO_SKIP = ".no-skip.onnx"

Run = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Race:
    """What is raced and how.

    Attributes:
        case: Which arrays.
        contenders: Files by name, one of them "plain".
        threads: For each contender.
        rounds: At most.
        least_rounds: Also when the time is over.
        seconds: After which no further round begins.
        least_calls: Timed calls in a turn, which also lasts for at least `BLOCK_S`.
        seed: Of the orders of opening and of the turns.
    """

    case: Case
    contenders: Mapping[str, str]
    threads: int
    rounds: int
    seed: int
    least_rounds: int = 1
    seconds: float = math.inf
    least_calls: int = 3


def main(race: Race) -> None:
    """Open the contenders, compare their answers, time them."""
    chance = random.Random(race.seed)
    # The order of opening decides where the weights lie in memory.
    names = chance.sample(list(race.contenders), len(race.contenders))
    runs = {name: open_contender(race.contenders[name], race.threads) for name in names}
    feed = arrays(race.case)
    expected = runs["plain"](feed)
    differences = {name: _difference(run(feed), expected) for name, run in runs.items()}
    for run in runs.values():
        _block(run, feed, race.least_calls)
    blocks: dict[str, list[float]] = {name: [] for name in race.contenders}
    gc.collect()
    gc.disable()
    began = time.perf_counter()
    for number in range(race.rounds):
        if number >= race.least_rounds and time.perf_counter() - began > race.seconds:
            break
        for name in chance.sample(list(runs), len(runs)):
            blocks[name].append(_block(runs[name], feed, race.least_calls))
    print(json.dumps({"blocks": blocks, "differences": differences}))


def open_contender(path: str, threads: int) -> Run:
    return _open_artifact(path, threads) if path.endswith(".lepton") else _open_plain(path, threads)


def _open_artifact(path: str, threads: int) -> Run:
    from leptonc.runtime import load

    session = load(path, threads=threads, eager=True)
    return lambda feed: list(session.run(feed).values())


def _open_plain(path: str, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A fusion that can cost time on a CPU; whoever names a file so does better without it.
    disabled = ["SkipLayerNormFusion"] if path.endswith(NO_SKIP) else []
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    return lambda feed: list(session.run(None, feed))


def _block(run: Run, feed: Mapping[str, np.ndarray], least_calls: int) -> float:
    began = time.perf_counter()
    run(feed)
    while time.perf_counter() - began < SETTLE_S:
        run(feed)
    calls: list[float] = []
    while len(calls) < least_calls or sum(calls) < BLOCK_S:
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
    _given = json.loads(sys.argv[1])
    main(Race(**{**_given, "case": Case(**_given["case"])}))
