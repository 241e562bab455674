"""Answers that are not numbers prove nothing, and the node that made them is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from leptonc.compiler.cli import main
from leptonc.compiler.errors import SourceError
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.verification.finite_answers import require_finite
from leptonc.compiler.verification.trials import Trial

HEAD = '<ir_version: 10, opset_import: ["" : 20]> g (float[4] x) => (float[4] y)'


def check(body: str, x: object) -> None:
    model = ir.from_onnx_text(f"{HEAD} {body}")
    inputs = {"x": np.array(x, np.float32)}
    require_finite(model, [Trial({}, inputs, GraphRunner(model)(inputs))])


@pytest.mark.parametrize(
    ("body", "x", "told"),
    [
        ("{ a = Neg(x) b = Sqrt(a) y = Relu(b) }", [1, 2, 3, 4], "NaN.*Sqrt node .* -> b"),
        ("{ a = Exp(x) y = Neg(a) }", [1, 2, 3, 900], "infinities.*Exp node .* -> a"),
        # Of the model's own infinity comes NaN: the node that makes the NaN is named.
        ("<float[1] i = {-inf}> { a = Sub(i, i) y = Add(x, a) }", [1] * 4, "NaN.*Sub node"),
        ("<float[1] w = {nan}> { y = Add(x, w) }", [1] * 4, "NaN.*weight 'w'"),
        ("{ y = Add(x, x) }", [1, 2, np.nan, 4], "NaN.*example input 'x'"),
        ("<float[1] i = {-inf}> { y = Add(x, i) }", [1] * 4, "infinities.*output 'y'"),
    ],
)
def test_the_first_node_is_named(body: str, x: object, told: str) -> None:
    with pytest.raises(SourceError, match=f"(?s){told}") as caught:
        check(body, x)
    assert caught.value.exit_code == 3
    assert "other example inputs" in str(caught.value.fix)


def test_infinities_of_the_model_itself_are_answers() -> None:
    check("<float[4] mask = {0, -inf, 0, -inf}> { y = Add(x, mask) }", [1, 2, 3, 4])


def test_a_compile_ends_with_it_and_leaves_no_file(tmp_path: Path, capfd) -> None:
    model = onnx.parser.parse_model(f"{HEAD} {{ a = Neg(x) y = Sqrt(a) }}")
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.ones(4, np.float32))
    out = tmp_path / "m.lepton"
    words = ["compile", str(tmp_path / "m.onnx"), "--inputs", str(tmp_path / "x.npz")]
    assert main([*words, "-o", str(out)]) == 3
    assert "Sqrt node" in capfd.readouterr().err
    assert not out.exists()
