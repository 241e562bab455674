"""One cold start: `MODEL INPUTS.npz THREADS`; `ready` once it has answered, then memory as JSON.

It imports what a service imports, and nothing before it must: for an artifact the runtime, for an
.onnx file ONNX Runtime. The clock is in the process that started this one.
"""

from __future__ import annotations

import sys


def main(model: str, inputs: str, threads: int) -> None:
    """Load, answer once, say so, report the memory."""
    import numpy as np

    feed = dict(np.load(inputs, allow_pickle=False))
    if model.endswith(".lepton"):
        from leptonc.runtime import load

        session = load(model, threads=threads, verify=True)
        answers = list(session.run(feed).values())
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        plain = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        answers = plain.run(None, feed)
    print("ready", flush=True)
    report([float(np.abs(answer).sum()) for answer in answers])


def report(checksums: list[float]) -> None:
    """Print the memory of this process in bytes, and a sum of each answer."""
    import json
    from pathlib import Path

    wanted = {"VmRSS:": "resident", "VmHWM:": "peak", "RssAnon:": "private"}
    memory = {}
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        key, *rest = line.split()
        if key in wanted:
            memory[wanted[key]] = int(rest[0]) * 1024
    print(json.dumps({**memory, "checksums": checksums}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
