"""Exports of tiny models, kept in build/: exporting is most of the work, and no pass changes it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

import onnx_ir as ir

from leptonc.compiler.export.onnx_export import ExportedGraph, export
from leptonc.compiler.sources.source import Source

ROOT = Path(__file__).resolve().parents[2]

# What an export depends on; the digest of all of it names the folder.
_TOOLS = ("torch", "transformers", "onnxscript", "onnx-ir", "onnx")
_FILES = (
    *("tests/architectures/architectures.py", "tests/architectures/exports.py"),
    *(f"tests/architectures/tiny_{part}.py" for part in ("inputs", "modules", "weights")),
    "models/random_weights.py",
    *(f"compiler/sources/{part}.py" for part in ("dimensions", "recipe")),
    *(f"compiler/export/{part}.py" for part in ("onnx_export", "trace")),
)


def kept_export(source: Source, outputs: Sequence[str]) -> ExportedGraph:
    """Export `source`, or read what an earlier call exported: in both cases from the file."""
    path = _folder() / f"{source.name}.onnx"
    if not path.exists():
        exported = export(source, list(outputs))
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        ir.save(exported.model, unfinished)
        unfinished.replace(path)
    return ExportedGraph(ir.load(path))


@cache
def _folder() -> Path:
    digest = hashlib.sha256()
    for tool in _TOOLS:
        digest.update(f"{tool} {metadata.version(tool)}\n".encode())
    for name in _FILES:
        digest.update((ROOT / name).read_bytes())
    return ROOT / "build" / "architectures" / digest.hexdigest()[:16]
