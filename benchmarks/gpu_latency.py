"""Latency on a GPU of one recipe in one precision, contenders taking turns.

Every contender goes the whole way, from NumPy arrays on the host to NumPy arrays on the host:

    eager           the module in that precision
    compiled        torch.compile(mode="max-autotune")
    artifact        `leptonc.runtime`, arrays bound once, one for each artifact that is given

Prints one JSON object. Run by `gpu_check.py`, in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ratios
import torch

ROOT = Path(__file__).resolve().parents[1]
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
WARM_UPS = 5
ROUNDS = 30
CALLS = 10

Arrays = dict[str, np.ndarray[Any, Any]]
Call = Callable[[], Mapping[str, Any]]


def recipe(name: str) -> Any:
    """Import a recipe of `models/`."""
    sys.path.insert(0, str(ROOT / "models"))
    return importlib.import_module(name)


def module_call(module: Any, inputs: Arrays, dtype: torch.dtype) -> Call:
    """Return a call that copies the inputs in, runs, and copies the outputs out."""
    pinned = {name: torch.from_numpy(array).pin_memory() for name, array in inputs.items()}

    def call() -> Mapping[str, Any]:
        moved = {name: tensor.to("cuda", non_blocking=True) for name, tensor in pinned.items()}
        cast = {n: t.to(dtype) if t.is_floating_point() else t for n, t in moved.items()}
        with torch.inference_mode():
            answer = module(**cast)
        if isinstance(answer, torch.Tensor):
            answer = {"output": answer}
        return {name: value.float().cpu().numpy() for name, value in answer.items()}

    return call


def artifact_call(path: str, inputs: Arrays, *, cuda_graphs: bool) -> Call:
    """Return a call of an artifact with bound arrays."""
    from leptonc.runtime import load

    return load(path, device="gpu", cuda_graphs=cuda_graphs).bind(inputs).run


def race(calls: Mapping[str, Call]) -> dict[str, list[float]]:
    """Time every contender in turn; seconds for one call, per round."""
    for call in calls.values():
        for _ in range(WARM_UPS):
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            torch.cuda.synchronize()
            taken[name].append((time.perf_counter() - start) / CALLS)
    return taken


def sqnr(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> float | None:
    """Return the lowest SQNR in dB of outputs in their order, or None when all are equal."""
    lowest: float | None = None
    for want, got in zip(expected.values(), actual.values(), strict=True):
        signal = float(np.sum(np.asarray(want, np.float64) ** 2))
        noise = float(np.sum((np.asarray(want, np.float64) - np.asarray(got, np.float64)) ** 2))
        if noise > 0:
            found = 10 * float(np.log10(signal / noise)) if signal > 0 else -np.inf
            lowest = found if lowest is None else min(lowest, found)
    return lowest


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("precision", choices=TYPES)
    parser.add_argument("--artifact", action="append", default=[], metavar="NAME=PATH")
    given = parser.parse_args()
    source, dtype = recipe(given.recipe), TYPES[given.precision]
    module = source.build().eval()
    inputs = {
        name: np.ascontiguousarray(torch.as_tensor(value).numpy())
        for name, value in source.example_inputs().items()
    }
    with torch.inference_mode():
        exact = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    exact = {"output": exact} if isinstance(exact, torch.Tensor) else exact
    reference = {name: value.numpy() for name, value in exact.items()}
    half = module.to("cuda", dtype)
    calls: dict[str, Call] = {
        "eager": module_call(half, inputs, dtype),
        "compiled": module_call(torch.compile(half, mode="max-autotune"), inputs, dtype),
    }
    for each in given.artifact:
        name, _, path = each.partition("=")
        calls[name] = artifact_call(path, inputs, cuda_graphs=name.endswith("graphs"))
    errors = {name: sqnr(reference, call()) for name, call in calls.items()}
    taken = race(calls)
    figures = {
        name: {
            "seconds": median(times),
            "of_eager": ratios.paired(times, taken["eager"]).median,
            "of_compiled": ratios.paired(times, taken["compiled"]).median,
            "sqnr_db": errors[name],
        }
        for name, times in taken.items()
    }
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "contenders": figures}))


if __name__ == "__main__":
    main()
