"""No file names an engine but those of its own two folders and the two tables of rows.

Identifiers, imports and literals count; texts for people (a literal with a space in it) and
docstrings do not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("compiler", "backends", "passes", "runtime")
ENGINES = ("ort", "onnxruntime", "tensorrt", "trt", "openvino")
OWN = (
    *("backends/ort/", "backends/tensorrt/", "backends/rows.py"),
    *("runtime/engines/ort/", "runtime/engines/tensorrt/", "runtime/engines/loaders.py"),
    # What one engine runs best.
    "passes/lower/",
)
PLATFORMS = frozenset({"ORT_CPU", "ORT_CUDA"})
PACKAGE = frozenset({"onnxruntime"})
# Who else names one, and with which words.
ALLOWED: dict[str, frozenset[str]] = {
    # The names that people write for what a graph is rewritten for.
    "passes/targets.py": PLATFORMS | {"ort-cpu", "ort-cuda"},
    # Rules that write an engine's own operators, and the types that each platform takes of them.
    "passes/fusions/attention/multi_head.py": PLATFORMS,
    "passes/fusions/attention/one_product.py": PLATFORMS,
    "passes/fusions/linear/engine_products.py": PLATFORMS,
    "passes/fusions/linear/pack.py": PLATFORMS,
    "passes/fusions/residual/bias.py": PLATFORMS,
    "passes/fusions/residual/skip_norm.py": PLATFORMS,
    "passes/fusions/rotary/emit.py": PLATFORMS,
    # Names of rules, which reports and manifests have.
    "passes/fusions/activation/gelu.py": frozenset({"gelu-ort"}),
    "passes/fusions/norm/core.py": frozenset({"rms-norm-ort"}),
    # Which half-width kernels a platform lacks.
    "passes/precision/operators.py": PLATFORMS,
    "passes/precision/precision.py": PLATFORMS,
    # The one evaluator of constants.
    "passes/fold/fold.py": PACKAGE
    | {"ort", "OrtValue", "ORT_DISABLE_ALL", "onnxruntime_pybind11_state", "run_with_ort_values"}
    | {"leptonc.runtime.engines.ort.library"},
    # The one engine on which graphs are run while compiling.
    "compiler/running/engine.py": PLATFORMS | {"leptonc.backends.ort", "ORT_CPU PLATFORM"},
    "compiler/running/plain_file.py": frozenset({"leptonc.backends.ort.plain_file"}),
    # A contender that runs in a bare process, without any code of ours.
    "compiler/measure/cold_start.py": PACKAGE,
    # Packages whose versions are recorded, or that the extra `compile` must have brought.
    "compiler/accuracy/candidates.py": PACKAGE,
    "compiler/commands/options.py": PACKAGE,
    "compiler/manifest.py": PACKAGE,
}


def named(source: str) -> Iterator[str]:
    """Give each identifier, import and literal that names an engine."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        texts: list[str] = []
        match node:
            case ast.Constant(value=str(text)) if id(node) not in docstrings and " " not in text:
                texts = [text]
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text):
                texts = [text]
            case ast.keyword(arg=str(text)) | ast.FunctionDef(name=text) | ast.ClassDef(name=text):
                texts = [text]
            case ast.Import(names=names):
                texts = [f"{alias.name} {alias.asname or ''}" for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                texts = [module, *(f"{alias.name} {alias.asname or ''}" for alias in names)]
        yield from (text.strip() for text in texts if names_an_engine(text))


def names_an_engine(text: str) -> bool:
    """Return whether an engine is a word of an identifier: "OrtEngine", "ORT_CPU", "ort-cpu"."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text)
    joined = "".join(words).lower()
    return any(word.lower() in ENGINES for word in words) or any(
        name in joined for name in ENGINES if len(name) > 3
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_an_engine_is_named_in_its_own_folders_and_rows_alone(package: str):
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(OWN):
            continue
        words = set(named(path.read_text(encoding="utf-8"))) - ALLOWED.get(name, frozenset())
        found |= {name: sorted(words)} if words else {}
    assert found == {}


@pytest.mark.parametrize("name", ALLOWED)
def test_every_exception_is_still_needed(name: str):
    assert set(named((ROOT / name).read_text(encoding="utf-8"))) & ALLOWED[name]


@pytest.mark.parametrize(
    "source",
    [
        "import onnxruntime",
        "import tensorrt as engine",
        "from leptonc.backends.ort import backend",
        "from leptonc.runtime import engines as ort",
        'TARGET = "ort-cpu"',
        'if backend == "tensorrt":\n    pass',
        "def tensorrt_options(): ...",
        "class OrtEngine: ...",
        "def f(ort): ...",
        "f(use_openvino=True)",
        "x = TensorRTOptions",
        "x = y.ORT_ENABLE_ALL",
    ],
)
def test_every_way_to_name_one_is_seen(source: str):
    assert list(named(source))


@pytest.mark.parametrize(
    "source",
    [
        '"""Runs on ONNX Runtime, or onnxruntime."""',
        'raise E("onnxruntime is not installed")',
        "import sort, portable, export",
        "def transport(report, shortest): ...",
    ],
)
def test_texts_and_words_that_only_look_like_one_are_left_alone(source: str):
    assert not list(named(source))
