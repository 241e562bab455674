"""The files that race: an artifact, and torch's own export as one .onnx, for each recipe.

They lie in `benchmarks/.work/` under digests of everything that made them, so that a change in
the compiler or in a recipe builds them again and nothing stale is ever measured. What is made
without leptonc has a digest of its own and outlives a change in leptonc.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from cases import Case

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = HERE / ".work"
PACKAGES = ("compiler", "passes", "backends", "runtime")
TOOLS = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Files:
    """Where a recipe's two contenders lie."""

    artifact: Path
    plain: Path


def prepare(recipes: Iterable[str]) -> dict[str, Files]:
    """Build what is missing and return the files by recipe."""
    return {recipe: _files(recipe) for recipe in dict.fromkeys(recipes)}


def our_folder() -> Path:
    """Return the folder of what leptonc as it is now makes."""
    return _folder("leptonc", *PACKAGES, "models")


def their_folder() -> Path:
    """Return the folder of what is made without leptonc."""
    return _folder("plain", "models", "benchmarks/plain_export.py")


def _files(recipe: str) -> Files:
    files = Files(our_folder() / f"{recipe}.lepton", their_folder() / f"{recipe}.onnx")
    if not files.artifact.is_file():
        print(f"compiling {recipe}", file=sys.stderr)
        answer(compile_command(recipe, files.artifact))
    if not files.plain.is_file():
        print(f"exporting {recipe}", file=sys.stderr)
        unfinished = files.plain.with_suffix(".unfinished.onnx")
        answer(export_command(recipe, unfinished))
        unfinished.replace(files.plain)
    return files


def compile_command(recipe: str, output: Path) -> list[str]:
    """Return the command that compiles `recipe` for ONNX Runtime on CPU."""
    model = ROOT / "models" / f"{recipe}.py"
    # -P: the folder of the caller must not be importable, it may hold a runtime/ or a numpy.py.
    call = [sys.executable, "-P", "-m", "leptonc.compiler.cli", "compile", str(model)]
    return [*call, "-t", "ort-cpu", "-o", str(output), "--json"]


def export_command(recipe: str, output: Path) -> list[str]:
    """Return the command that exports `recipe` with torch alone."""
    model = ROOT / "models" / f"{recipe}.py"
    return [sys.executable, "-P", str(HERE / "plain_export.py"), str(model), str(output)]


def answer(command: list[str]) -> dict[str, Any]:
    """Run a command that prints one JSON object, and return that object.

    Raises:
        SystemExit: It failed; its messages are shown.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} exited with {done.returncode}:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def race_command(
    case: Case,
    contenders: Mapping[str, Path],
    *,
    threads: int,
    rounds: int,
    seed: int,
    **limits: float,
) -> list[str]:
    """Return the command of a race; see `Race` in `race.py` for the arguments."""
    race = {
        "case": vars(case),
        "contenders": {name: str(path) for name, path in contenders.items()},
        "threads": threads,
        "rounds": rounds,
        "seed": seed,
        **limits,
    }
    return [sys.executable, str(HERE / "race.py"), json.dumps(race)]


def pooled_races(
    case: Case,
    contenders: Mapping[str, Path],
    options: argparse.Namespace,
    *,
    least_rounds: int,
) -> tuple[dict[str, list[float]], list[dict[str, Any]]]:
    """Return the seconds of each contender over races in several processes, and the races.

    Args:
        case: The recipe and its size.
        contenders: Artifacts and graphs by name.
        options: With `threads`, `rounds`, `seconds` and `processes`.
        least_rounds: In each process, however slow the model is.
    """
    races = [
        answer(
            race_command(
                case,
                contenders,
                threads=options.threads,
                rounds=options.rounds,
                seed=seed,
                seconds=options.seconds,
                least_rounds=least_rounds,
                least_calls=1,
            )
        )
        for seed in range(options.processes)
    ]
    pooled = {name: [s for race in races for s in race["blocks"][name]] for name in contenders}
    return pooled, races


def _folder(name: str, *sources: str) -> Path:
    """Return a folder under the digest of some sources and of the tools, made when missing."""
    digest = hashlib.sha256()
    for source in sources:
        top = ROOT / source
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(ROOT).as_posix().encode())
                digest.update(path.read_bytes())
    for tool in TOOLS:
        digest.update(f"{tool}={metadata.version(tool)}".encode())
    folder = WORK / f"{name}-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
