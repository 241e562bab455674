"""Every check that needs a GPU, in one command: `make gpu-check`.

    numerics    each engine, recipe and precision: compiled here, run on the GPU, and compared with
                the source module
    latency     eager, torch.compile(max-autotune) and the artifacts, taking turns
    tests       tests/gpu

It says at once what is missing, runs what it can, and writes one JSON file in which every check is
"passed", "failed" or "not run", with the reason. Nothing is downloaded.

Exit status: 0 when all that could run passed; 1 when a check failed; 5 when there is no GPU, so
that nothing could run (the file is written all the same); 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpu_survey import ROOT, Survey, survey

RECIPES = (
    *("digits_cnn", "minilm", "resnet50", "mobilenet_v2", "vit_base", "bert_base", "t5_encoder"),
    *("t5_decoder", "gpt2", "gpt2_decode"),
)
PRECISIONS = ("fp32", "fp16", "bf16")
# What the engines of `_WITH_INTEGERS` have besides; PyTorch has no such module to race.
INTEGERS = ("int8", "int4")
# Each engine with the options that choose it, and what it needs besides a GPU.
ENGINES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ort-cuda": (("-t", "ort-cuda"), ("leptonc", "onnxruntime-cuda")),
    "tensorrt-rtx": (
        ("-t", "tensorrt", "--flavour", "rtx"),
        ("leptonc", "tensorrt-rtx"),
    ),
    "tensorrt": (
        ("-t", "tensorrt", "--flavour", "classic"),
        ("leptonc", "tensorrt"),
    ),
}
_WITH_INTEGERS = ("tensorrt-rtx", "tensorrt")
# Exit codes of `leptonc`: what this machine or version does not offer, and wrong answers.
_NOT_OFFERED = (4, 5)
_TIMEOUT_S = 3600
NO_GPU = 5


@dataclass(frozen=True)
class Check:
    """One thing to find out.

    Attributes:
        kind: "numerics", "latency" or "tests".
        name: Unique.
        needs: Parts of the survey.
        engine: A key of `ENGINES`, or empty.
        recipe: Of `models/`, or empty.
        precision: One of `PRECISIONS` or `INTEGERS`, or empty.
    """

    kind: str
    name: str
    needs: tuple[str, ...]
    engine: str = ""
    recipe: str = ""
    precision: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a check."""

    check: Check
    status: str
    why: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return one entry of the file."""
        named = {key: value for key, value in asdict(self.check).items() if value}
        return {**named, "status": self.status, "why": self.why, "figures": dict(self.figures)}


def checks(recipes: Sequence[str] = RECIPES) -> Iterator[Check]:
    """Yield every check, artifacts before the races that they take part in."""
    for recipe in recipes:
        for precision in PRECISIONS:
            for engine in ENGINES:
                yield _numerics_check(engine, recipe, precision)
            name = f"latency {recipe} {precision}"
            yield Check("latency", name, ("gpu", "torch"), "", recipe, precision)
        for precision in INTEGERS:
            for engine in _WITH_INTEGERS:
                yield _numerics_check(engine, recipe, precision)
    yield Check("tests", "tests/gpu", ("gpu", "leptonc", "onnxruntime-cuda", "pytest"))


def _numerics_check(engine: str, recipe: str, precision: str) -> Check:
    needs = ("gpu", *ENGINES[engine][1])
    name = f"numerics {engine} {recipe} {precision}"
    return Check("numerics", name, needs, engine, recipe, precision)


class Runner:
    """Runs checks one after the other; artifacts lie in a folder that goes away."""

    def __init__(self, found: Survey, folder: Path) -> None:
        self._found = found
        self._folder = folder
        self._artifacts: dict[tuple[str, str], list[str]] = {}

    def run(self, check: Check) -> Outcome:
        """Run one check, if what it needs is there."""
        lacking = self._found.lacks(check.needs)
        if lacking is not None:
            return Outcome(check, "not run", lacking)
        if check.kind == "numerics":
            return self._numerics(check)
        if check.kind == "latency":
            return self._latency(check)
        return _tests(check)

    def _numerics(self, check: Check) -> Outcome:
        path = self._folder / f"{check.engine}-{check.recipe}-{check.precision}.lepton"
        command = [*_LEPTONC, "compile", f"models/{check.recipe}.py", *ENGINES[check.engine][0]]
        if check.engine == "tensorrt-rtx":
            gpu = self._found.parts["gpu"].found or {}
            command += ["--sm", str(gpu["sm"]).replace(".", "")]
        done = _call([*command, "-p", check.precision, "-o", str(path), "--json"])
        if done.returncode != 0:
            return _ended(check, done)
        figures = json.loads(done.stdout)["verification"]
        variant = figures["variants"][0]
        if not variant["engine_ran"]:
            # The build does not run the engine: loading it on this machine completes the proof.
            done = _call(
                [
                    *_LEPTONC,
                    "verify",
                    str(path),
                    f"models/{check.recipe}.py",
                    "--device",
                    "gpu",
                    "--json",
                ]
            )
            if done.returncode != 0:
                return _ended(check, done)
            variant = json.loads(done.stdout)
        self._artifacts.setdefault((check.recipe, check.precision), []).append(str(path))
        return Outcome(check, "passed", None, {"trials": variant["trials"]})

    def _latency(self, check: Check) -> Outcome:
        command = [sys.executable, "benchmarks/gpu_latency.py", check.recipe, check.precision]
        for path in self._artifacts.get((check.recipe, check.precision), ()):
            name = Path(path).stem.removesuffix(f"-{check.recipe}-{check.precision}")
            command += ["--artifact", f"{name}={path}"]
            if name == "ort-cuda":
                command += ["--artifact", f"{name}-graphs={path}"]
        done = _call(command)
        if done.returncode != 0:
            return Outcome(check, "failed", _last_words(done))
        return Outcome(check, "passed", None, json.loads(done.stdout.strip().splitlines()[-1]))


_LEPTONC = (sys.executable, "-m", "leptonc.compiler.cli")


def _ended(check: Check, done: subprocess.CompletedProcess[str]) -> Outcome:
    """Tell what this machine or version does not offer from what went wrong."""
    offered = done.returncode not in _NOT_OFFERED
    return Outcome(check, "failed" if offered else "not run", _last_words(done))


def _tests(check: Check) -> Outcome:
    done = _call([sys.executable, "-m", "pytest", "-q", "tests/gpu"])
    summary = done.stdout.strip().splitlines()[-1:] or [""]
    status = "passed" if done.returncode == 0 else "failed"
    why = None if status == "passed" else done.stdout[-4000:]
    return Outcome(check, status, why, {"summary": summary[0]})


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"took longer than {_TIMEOUT_S} s")


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip()[-2000:] or f"ended with status {done.returncode}"


def exit_status(outcomes: Sequence[Outcome], found: Survey) -> int:
    """Return 0 when all that ran passed, 1 when one failed, and `NO_GPU` without a GPU."""
    if any(outcome.status == "failed" for outcome in outcomes):
        return 1
    return NO_GPU if found.parts["gpu"].found is None else 0


def main() -> int:
    """Check, write the file, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "gpu-check.json")
    parser.add_argument("--only", nargs="+", metavar="RECIPE", choices=RECIPES, default=RECIPES)
    given = parser.parse_args()
    found = survey()
    for part in found.parts.values():
        if part.found is None:
            print(f"missing: {part.name}: {part.missing}\n  to get it: {part.fix}")
        else:
            print(f"found: {part.name} {part.found['version']}")
    outcomes: list[Outcome] = []
    given.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="leptonc-gpu-check-") as folder:
        runner = Runner(found, Path(folder))
        for check in checks(given.only):
            outcome = runner.run(check)
            outcomes.append(outcome)
            if outcome.status != "not run":
                print(f"{outcome.status}: {check.name}", flush=True)
            # Written each time: what was found out outlives an interruption.
            _write(given.output, found, outcomes)
    counts = {s: sum(o.status == s for o in outcomes) for s in ("passed", "failed", "not run")}
    print(", ".join(f"{number} {status}" for status, number in counts.items()))
    print(f"written to {given.output}")
    return exit_status(outcomes, found)


def _write(path: Path, found: Survey, outcomes: Sequence[Outcome]) -> None:
    record = {"machine": found.to_json(), "checks": [outcome.to_json() for outcome in outcomes]}
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
