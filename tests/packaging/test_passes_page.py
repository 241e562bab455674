"""The reference of passes and rules is what the passes say, and leaves none out."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "passes.md"


@pytest.fixture(scope="module")
def generated() -> str:
    path = ROOT / "docs" / "write_passes.py"
    spec = importlib.util.spec_from_file_location("write_passes", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.generated()


def written_rules() -> set[str]:
    """The names of all rules in the source, whether the pipeline uses them or not."""
    return {
        keyword.value.value
        for path in sorted((ROOT / "passes").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Rule"
        for keyword in node.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
    }


def test_the_page_is_up_to_date(generated):
    assert PAGE.read_text(encoding="utf-8") == generated, "run: python docs/write_passes.py"


def test_every_pass_is_on_the_page(generated):
    from leptonc.passes import PASSES

    assert [one.name for one in PASSES if f"### `{one.name}`\n" not in generated] == []


def test_every_rule_is_on_the_page_and_so_in_the_pipeline(generated):
    assert sorted(name for name in written_rules() if f"| `{name}` |" not in generated) == []
