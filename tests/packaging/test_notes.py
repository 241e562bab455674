"""The key of each note on a node, and each section of the manifest's evidence, is spelt once.

Notes are metadata with keys of ours ("leptonc.line"); who reads one imports the name of its key.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("compiler", "backends", "passes", "runtime")
# Groups of entry points, the log, and names of modules that are run or matched.
OTHERS = {
    *("leptonc.backends", "leptonc.engines", "leptonc.passes", "leptonc.passes."),
    *("leptonc.runtime", "leptonc.passes.optimize", "leptonc.compiler.measure.cold_start"),
}


def notes() -> dict[str, list[str]]:
    """Return where each literal that begins with "leptonc." stands."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                    continue
                if node.value.startswith("leptonc.") and id(node) not in texts:
                    found[node.value].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_each_key_is_spelt_once():
    keys = {key: places for key, places in notes().items() if key not in OTHERS and " " not in key}
    assert {"leptonc.line", "leptonc.pass", "leptonc.layer"} <= keys.keys()
    assert {key: places for key, places in keys.items() if len(places) > 1} == {}


def test_every_other_literal_is_still_there():
    assert notes().keys() >= OTHERS
