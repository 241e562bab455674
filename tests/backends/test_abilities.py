from __future__ import annotations

import onnx.parser
import onnx_ir as ir
import pytest

from leptonc.backends import BACKENDS
from leptonc.backends.abilities import DryRuns, ReadsGraphs, Refused

MODEL = """
<ir_version: 10, opset_import: ["" : 20, "acme" : 1]>
g (float[2] x) => (float[2] y) { h = Relu(x)  y = acme.Fold(h) }
"""


@pytest.mark.parametrize(
    ("backend", "ability", "has"),
    [
        ("ort", ReadsGraphs, True),
        ("ort", DryRuns, False),
        ("tensorrt", ReadsGraphs, False),
        ("tensorrt", DryRuns, True),
    ],
)
def test_an_ability_is_known_from_the_backend(backend: str, ability: type, has: bool) -> None:
    (row,) = (row for row in BACKENDS if row.name == backend)
    assert isinstance(row.load(), ability) is has


def test_an_uncovered_node_says_where_it_came_from() -> None:
    plain, custom = ir.from_proto(onnx.parser.parse_model(MODEL)).graph
    plain.name, custom.name = "first", "second"
    custom.metadata_props["leptonc.line"] = "net.py:7"
    assert Refused.of(plain, "why", "fix").where == "node 'first' (Relu)"
    found = Refused.of(custom, "why", "fix")
    assert found.where == "node 'second' (acme::Fold), from net.py:7"
    assert found.to_json() == {
        "node": "second",
        "operator": "acme::Fold",
        "reason": "why",
        "fix": "fix",
        "line": "net.py:7",
    }
