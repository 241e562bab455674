"""One cold start, measured from inside: import, load, first answer, resident memory.

`python -m leptonc.compiler.measure.cold_start MODEL INPUTS.npz THREADS [RUNS]` prints one line of JSON;
with RUNS, also the median of that many warm runs. It is
a process of its own so that nothing is loaded before the clock starts, and so that memory
belongs to one contender. It imports what a service imports: for an artifact the runtime, for
an .onnx file ONNX Runtime.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subprocess import CompletedProcess

Run = Callable[[Mapping[str, Any]], object]


def start(model: Path, inputs: Path, threads: int, runs: int = 0) -> CompletedProcess[str]:
    """Run this module in a process of its own; what it prints is what `main` prints.

    Args:
        model: An artifact or an .onnx file.
        inputs: Arrays as .npz.
        threads: Of the engine, 0 for its default.
        runs: Warm runs to time.
    """
    import subprocess

    # -P: a folder called runtime/ or a numpy.py where the user stands must not be imported.
    command = [sys.executable, "-P", "-m", "leptonc.compiler.measure.cold_start"]
    return subprocess.run(
        [*command, str(model), str(inputs), str(threads), str(runs)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def main(model: str, inputs: str, threads: int, runs: int = 0) -> None:
    """Load `model` (0 threads: the engine's default), run it, print the measurements."""
    began = time.perf_counter()
    opened = _open_onnx if model.endswith(".onnx") else _open_artifact
    run, warm_up = opened(model, threads)
    loaded = time.perf_counter()

    import numpy as np

    with np.load(inputs, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    ready = time.perf_counter()
    run(arrays)
    answered = time.perf_counter()
    memory = resident_bytes()
    record = {
        "load_s": loaded - began,
        "first_s": answered - ready,
        "resident_bytes": memory.get("VmRSS"),
        "private_bytes": memory.get("RssAnon"),
        "peak_bytes": memory.get("VmHWM"),
    }
    if runs:
        warm_up()
        record["latency_s"] = _warm_latency(run, arrays, runs)
    sys.stdout.write(json.dumps(record) + "\n")


def _warm_latency(run: Run, arrays: Mapping[str, Any], runs: int) -> float:
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        run(arrays)
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[len(seconds) // 2]


def _open_artifact(model: str, threads: int) -> tuple[Run, Callable[[], None]]:
    from leptonc.runtime import load

    session = load(model, threads=threads or None)
    return session.run, session.warm_up


def _open_onnx(model: str, threads: int) -> tuple[Run, Callable[[], None]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(None, arrays), lambda: None


def resident_bytes(status: Path = Path("/proc/self/status")) -> dict[str, int]:
    """Return the memory lines of /proc/self/status in bytes; nothing where there is none.

    Not `getrusage`: its maximum survives `exec`, so a child would report its parent's peak.
    """
    if not status.is_file():
        return {}
    lines = (line.split() for line in status.read_text().splitlines())
    return {
        fields[0].removesuffix(":"): int(fields[1]) * 1024
        for fields in lines
        if len(fields) == 3 and fields[2] == "kB"
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
