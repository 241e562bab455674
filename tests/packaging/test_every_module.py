"""Every module has a test: of its own name, or one that imports it, or one that COVERED names.

A module that only works within its neighbours is tested through them; the table says where.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MATERIAL = ROOT / "tests" / "material"
PACKAGES = ("compiler", "backends", "passes", "runtime")
# By test file below tests/: the modules that its tests go through.
COVERED: Mapping[str, str] = {
    "backends/ort/test_backend.py": "backends/canonical_graph",
    "backends/tensorrt/test_backend.py": """
        backends/tensorrt/builder backends/tensorrt/operators backends/tensorrt/preconditions
    """,
    "compiler/accuracy/test_stage.py": """
        compiler/accuracy/candidates compiler/accuracy/yardstick compiler/measure/layer_seconds
    """,
    "compiler/inspection/test_loadable.py": "compiler/commands/check runtime/engines/ort/machine",
    "compiler/export/test_onnx_export.py": "compiler/export/trace",
    "compiler/measure/test_bench.py": """
        backends/ort/plain_file compiler/measure/bench_report compiler/running/plain_file
    """,
    "backends/test_unpack.py": """
        backends/ort/read_back backends/ort/row backends/row
    """,
    "compiler/running/test_graph_runner.py": "backends/ort/running compiler/running/engine",
    "compiler/sources/test_recipe.py": """
        compiler/sources/files compiler/sources/module_check compiler/sources/user_calls
        compiler/sources/user_modules
    """,
    "compiler/test_calibrate.py": "compiler/calibration/data compiler/calibration/samples",
    "compiler/test_cli.py": """
        compiler/commands/bench compiler/commands/doctor compiler/commands/group
        compiler/commands/inspect compiler/commands/options compiler/commands/run
        compiler/commands/verify compiler/release/gates compiler/verification/blame
        compiler/verification/proof
    """,
    "compiler/test_driver.py": "compiler/export/interface",
    "compiler/test_tensorrt.py": "backends/tensorrt/row compiler/dry_run",
    "passes/bounds/test_bounds.py": "passes/bounds/elementwise passes/bounds/lookback",
    "passes/clean/test_clean.py": """
        passes/clean/chains passes/clean/noops passes/clean/scalar_ranges
        passes/clean/subexpressions passes/graph/sweep
    """,
    "passes/facts/test_dims.py": """
        passes/facts/dims_of_einsum
        passes/facts/onnx_inference passes/facts/symbolic
        passes/facts/symbolic_view
    """,
    "passes/fold/test_fold.py": """
        passes/fold/branches passes/fold/evaluator passes/fold/materialize passes/fold/obstacles
        passes/fold/program passes/fold/region passes/fold/shapes passes/graph/constants
        passes/graph/operators
    """,
    "passes/fusions/activation/test_gelu.py": "passes/fusions/activation/polynomial",
    "passes/fusions/activation/test_sigmoid.py": """
        passes/fusions/activation/hard_swish passes/fusions/activation/mish
    """,
    "passes/fusions/attention/test_forms.py": """
        passes/fusions/attention/core passes/fusions/attention/heads
        passes/fusions/attention/mask
        passes/fusions/attention/packed passes/fusions/attention/projection
        passes/fusions/attention/scores passes/fusions/attention/standard
        passes/fusions/attention/turn passes/fusions/attention/guard
    """,
    "passes/fusions/attention/test_operators.py": """
        passes/facts/dims_of_attention passes/fusions/attention/key_padding
        passes/fusions/attention/multi_head
    """,
    "passes/fusions/linear/test_gemm.py": "passes/fusions/linear/read",
    "passes/fusions/residual/test_bias.py": "passes/rewriting/scalars",
    "passes/fusions/norm/test_affine.py": "passes/fusions/norm/parts",
    "passes/fusions/rotary/test_embedding.py": """
        passes/fusions/rotary/column_parts passes/fusions/rotary/emit passes/fusions/rotary/heads passes/fusions/rotary/layout
        passes/fusions/rotary/partial passes/fusions/rotary/read passes/rewriting/reuse
        passes/fusions/rotary/turns
    """,
    "passes/movement/test_masks.py": """
        passes/movement/cast_like passes/movement/flat_grids passes/movement/neutral_operands
        passes/movement/widened_masks passes/rewriting/broadcasting
    """,
    "passes/movement/test_moves.py": """
        passes/movement/slices passes/movement/transpose_joins passes/movement/transposes
        passes/movement/unsqueezes
    """,
    "passes/precision/test_precision.py": "passes/precision/operators passes/precision/placement",
    "passes/quantize/test_quantize.py": """
        passes/quantize/integer_flow passes/quantize/products passes/quantize/static
        passes/quantize/tables passes/quantize/weights passes/graph/insertion
    """,
    "passes/rewriting/test_rewriter.py": "passes/graph/editing",
    "passes/share/test_share.py": "passes/share/ties",
    "runtime/engines/ort/test_cpu.py": "runtime/engines/ort/weights",
    "runtime/engines/tensorrt/test_engine.py": """
        runtime/cuda/memory runtime/engines/tensorrt/binding runtime/engines/tensorrt/lane
        runtime/engines/tensorrt/run runtime/engines/tensorrt/tensors
    """,
    "runtime/test_session.py": """
        runtime/engines/load_options runtime/engines/ort/opening runtime/loading
    """,
}


def modules() -> list[str]:
    return [
        path.relative_to(ROOT).with_suffix("").as_posix()
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py"
    ]


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules of ours that a file imports, as paths without the suffix."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and node.value == "leptonc.runtime":
            # `python -m leptonc.runtime`, in a process of its own.
            found.add("leptonc.runtime.__main__")
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    ours = (name.removeprefix("leptonc.").replace(".", "/") for name in found)
    return frozenset(
        f"{name}/__init__" if (ROOT / name / "__init__.py").is_file() else name for name in ours
    ) | {name for name in found if (MATERIAL / f"{name}.py").is_file()}


@cache
def reached(test: Path) -> frozenset[str]:
    """Return the modules that a test file imports, and those that these import, and so on."""
    seen: set[str] = set()
    ahead = list(imports(test))
    while ahead:
        name = ahead.pop()
        path = (ROOT if "/" in name else MATERIAL) / f"{name}.py"
        if name not in seen and path.is_file():
            seen.add(name)
            ahead.extend(imports(path))
    return frozenset(seen)


def tried_by_name() -> set[str]:
    """Return the modules with a test file of their name, or that a test file imports."""
    tests = sorted((ROOT / "tests").rglob("*.py"))
    direct = {name for path in tests for name in imports(path)}
    own = {name for name in modules() if own_test(name).is_file()}
    return direct | own


def own_test(module: str) -> Path:
    folder, _, name = module.rpartition("/")
    return ROOT / "tests" / folder / f"test_{name}.py"


def test_every_module_has_a_test():
    named = {name for names in COVERED.values() for name in names.split()}
    assert sorted(set(modules()) - tried_by_name() - named) == []


@pytest.mark.parametrize("test", COVERED)
def test_what_the_table_names_is_there_and_within_the_reach_of_its_test(test: str):
    named = set(COVERED[test].split())
    assert named <= set(modules())
    assert sorted(named - reached(ROOT / "tests" / test)) == []


def test_no_module_stands_in_the_table_twice_or_for_nothing():
    named = [name for names in COVERED.values() for name in names.split()]
    assert len(named) == len(set(named))
    assert sorted(set(named) & tried_by_name()) == []
