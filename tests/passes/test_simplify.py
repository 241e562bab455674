from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from leptonc.passes.errors import PassRefusedError
from leptonc.passes.pipeline import run_passes
from leptonc.passes.simplify import Simplify

GRAPH = """g (float[n, 4] x) => (float[n, 2, 2] y) <float[4] w = {1, 2, 3, 4}> {
  one = Constant<value = int64[1] {-1}>()  two = Constant<value = int64[2] {2, 2}>()
  shape = Concat<axis = 0>(one, two)
  a = Identity(x)  b = Mul(a, w)  y = Reshape(b, shape)
}"""


def test_it_simplifies_and_keeps_the_interface(parse, run):
    model = parse(GRAPH)
    model.graph.metadata_props["key"] = "value"
    model.metadata_props["key"] = "value"
    feeds = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
    before = run(model, feeds)
    (stats,) = run_passes(model, (Simplify(),))
    assert stats.counts == (("nodes removed", 4),)
    assert sorted(node.op_type for node in model.graph) == ["Mul", "Reshape"]
    assert model.metadata_props["key"] == model.graph.metadata_props["key"] == "value"
    np.testing.assert_array_equal(run(model, feeds)[0], before[0])


def test_weights_that_it_did_not_change_stay_in_their_file(parse, tmp_path):
    array = np.arange(1, 5, dtype=np.float32)
    (tmp_path / "weights").write_bytes(array.tobytes())
    model = parse(GRAPH)
    external = ir.ExternalTensor(
        "weights", 0, 16, ir.DataType.FLOAT, shape=ir.Shape([4]), name="w", base_dir=tmp_path
    )
    model.graph.initializers["w"].const_value = external
    run_passes(model, (Simplify(),))
    assert model.graph.initializers["w"].const_value is external


def test_it_is_refused_without_onnxsim(parse, monkeypatch):
    monkeypatch.setattr("leptonc.passes.simplify.find_spec", lambda name: None)
    with pytest.raises(PassRefusedError, match="onnxsim is not installed") as caught:
        run_passes(parse(GRAPH), (Simplify(),))
    assert caught.value.exit_code == 4


def test_it_is_refused_above_two_gigabytes(parse):
    model = parse(GRAPH)
    model.graph.initializers["w"].const_value = ir.ExternalTensor(
        "nowhere", 0, 2 << 30, ir.DataType.FLOAT, shape=ir.Shape([1 << 29]), name="w"
    )
    with pytest.raises(PassRefusedError, match="onnxsim holds less than 2 GiB"):
        run_passes(model, (Simplify(),))


def test_it_is_refused_for_functions(parse):
    model = parse(
        """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 20]>
        f (a) => (b) { b = Neg(a) }"""
    )
    with pytest.raises(PassRefusedError, match="it has functions"):
        run_passes(model, (Simplify(),))


def answer(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {text}')


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("g () => (float[n, 2, 2] y) { y = Constant<value_float = 1.0>() }", "inputs or outputs"),
        ("g (float[n, 4] x) => (float[n, 2, 2] z) { z = Neg(x) }", "inputs or outputs"),
        ("g (float[n, 4] x) => (double[n, 2, 2] y) { y = Cast<to = 11>(x) }", "inputs or outputs"),
        ("g (float[n, 4] x) => (float[n, 2, 2] y) { y = Neg(nobody) }", "an invalid graph"),
    ],
)
def test_what_onnxsim_must_not_change_is_checked(parse, monkeypatch, returned, reason):
    monkeypatch.setattr("onnxsim.simplify", lambda proto, **options: (answer(returned), True))
    model = parse(GRAPH)
    text = ir.to_onnx_text(model)
    with pytest.raises(PassRefusedError, match=reason):
        run_passes(model, (Simplify(),))
    assert ir.to_onnx_text(model) == text


def test_a_crash_of_onnxsim_is_reported(parse, monkeypatch):
    def crash(proto: onnx.ModelProto, **options: object) -> None:
        raise RuntimeError("no such thing\nsecond line")

    monkeypatch.setattr("onnxsim.simplify", crash)
    with pytest.raises(PassRefusedError, match="it failed: no such thing"):
        run_passes(parse(GRAPH), (Simplify(),))
