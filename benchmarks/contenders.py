"""The files that race: an artifact, and torch's own export as one .onnx, for each recipe.

They lie in `benchmarks/.work/` under a digest of everything that made them, so that a change in
the compiler or in a recipe builds them again and nothing stale is ever measured.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = HERE / ".work"
SOURCES = ("compiler", "passes", "backends", "runtime", "models")
TOOLS = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Files:
    """Where a recipe's two contenders lie."""

    artifact: Path
    plain: Path


def prepare(recipes: Iterable[str]) -> dict[str, Files]:
    """Build what is missing and return the files by recipe."""
    folder = WORK / _digest()
    folder.mkdir(parents=True, exist_ok=True)
    return {recipe: _files(recipe, folder) for recipe in dict.fromkeys(recipes)}


def _files(recipe: str, folder: Path) -> Files:
    files = Files(folder / f"{recipe}.lepton", folder / f"{recipe}.onnx")
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


def _digest() -> str:
    digest = hashlib.sha256((HERE / "plain_export.py").read_bytes())
    for package in SOURCES:
        for path in sorted((ROOT / package).glob("*")):
            if path.is_file():
                digest.update(f"{package}/{path.name}".encode())
                digest.update(path.read_bytes())
    for tool in TOOLS:
        digest.update(f"{tool}={metadata.version(tool)}".encode())
    return digest.hexdigest()[:16]
