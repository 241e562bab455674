"""Weights of every type and in every place reach the engine with their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from small_artifacts import build, parse, spec

from leptonc.runtime import load

RNG = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_a_large_weight_that_is_an_output_of_its_subgraph_works(tmp_path: Path) -> None:
    model = ir.from_onnx_text("""
    <ir_version: 10, opset_import: ["" : 20]>
    g (bool c, float[300] x) => (float[300] y) {
      y = If (c) <
        then_branch = yes () => (float[300] a) { a = Constant <value = float {1}> () },
        else_branch = no () => (float[300] b) { b = Neg(x) }
      >
    }
    """)
    large = ir.Tensor(np.arange(300, dtype=np.float32), name="a")
    yes = next(g for g in model.graph.subgraphs() if g.name == "yes")
    [constant] = list(yes)
    constant.attributes["value"] = ir.AttrTensor("value", large)
    path = build(
        tmp_path / "m.lepton",
        model,
        [spec("c", "bool"), spec("x", "float32", 300)],
        [spec("y", "float32", 300)],
        tmp_path,
    )
    session = load(path)
    x = floats(300)
    np.testing.assert_array_equal(session(c=np.array(True), x=x)["y"], np.arange(300))
    np.testing.assert_array_equal(session(c=np.array(False), x=x)["y"], -x)


def test_a_weight_that_is_an_output_works(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[1, 400] x) => (float[1, 400] y, float[1, 400] w) { y = Add(x, w) }
    """
    w = floats(1, 400)
    model = ir.from_onnx_text(text)
    output = model.graph.outputs[1]
    output.const_value = ir.Tensor(w, name="w")
    model.graph.initializers["w"] = output
    path = build(
        tmp_path / "m.lepton",
        model,
        [spec("x", "float32", 1, 400)],
        [spec("y", "float32", 1, 400), spec("w", "float32", 1, 400)],
        tmp_path,
    )
    outputs = load(path)(x=np.zeros((1, 400), np.float32))
    np.testing.assert_array_equal(outputs["y"], w)
    np.testing.assert_array_equal(outputs["w"], w)


CARRIED = ["float16", "float64", "int8", "uint8", "int32", "int64", "bool"]


@pytest.mark.parametrize("dtype", CARRIED)
def test_weights_of_many_types_are_mapped(dtype: str, tmp_path: Path) -> None:
    check_weight(RNG.integers(0, 2, (40, 40)).astype(dtype), dtype, tmp_path)


@pytest.mark.parametrize("dtype", ["BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2"])
def test_weights_that_numpy_cannot_spell_are_mapped(dtype: str, tmp_path: Path) -> None:
    array = np.array(RNG.integers(0, 2, (40, 40)).astype(np.float32)).astype(
        ir.DataType[dtype].numpy()
    )
    check_weight(array, dtype, tmp_path)


def check_weight(array: np.ndarray, dtype: str, tmp_path: Path) -> None:
    """Look rows up in a weight and convert them: the engine must see the stored values."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (int64[n] i, float[40] k) => (float[n, 40] y) {
      f = Cast <to = 1> (w)
      r = Gather(f, i)
      y = Mul(r, k)
    }
    """
    path = build(
        tmp_path / "m.lepton",
        parse(text, {"w": array}),
        [spec("i", "int64", {"name": "n", "min": 1, "max": None}), spec("k", "float32", 40)],
        [spec("y", "float32", {"name": "n", "min": 1, "max": None}, 40)],
        tmp_path,
    )
    rows = np.array([3, 0, 39])
    got = load(path)(i=rows, k=np.full(40, 2, np.float32))["y"]
    np.testing.assert_array_equal(got, array[rows].astype(np.float32) * 2)


def test_a_large_weight_of_text_stays_in_the_graph(tmp_path: Path) -> None:
    words = [f"word-{index:04}" for index in range(500)]
    model = ir.from_onnx_text("""
    <ir_version: 10, opset_import: ["" : 20]>
    g (int64[n] i) => (string[n] y) { y = Gather(w, i) }
    """)
    tensor = ir.StringTensor(np.array([w.encode() for w in words], object), name="w")
    value = ir.Value(
        name="w", const_value=tensor, type=ir.TensorType(ir.DataType.STRING), shape=ir.Shape([500])
    )
    next(iter(model.graph)).replace_input_with(0, value)
    model.graph.initializers["w"] = value
    n = {"name": "n", "min": 1, "max": None}
    path = build(
        tmp_path / "m.lepton", model, [spec("i", "int64", n)], [spec("y", "str", n)], tmp_path
    )
    assert load(path)(i=np.array([499, 0]))["y"].tolist() == ["word-0499", "word-0000"]


def test_quantised_nodes_reach_the_engine(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 32] x) => (float[n, 64] y) {
      s = Constant <value = float {0.05}> ()
      z = Constant <value = uint8 {128}> ()
      t = Constant <value = float {0.01}> ()
      u = Constant <value = int8 {0}> ()
      q = QuantizeLinear(x, s, z)
      d = DequantizeLinear(q, s, z)
      e = DequantizeLinear(w, t, u)
      y = MatMul(d, e)
    }
    """
    w = RNG.integers(-127, 127, (32, 64)).astype(np.int8)
    n = {"name": "n", "min": 1, "max": None}
    path = build(
        tmp_path / "m.lepton",
        parse(text, {"w": w}),
        [spec("x", "float32", n, 32)],
        [spec("y", "float32", n, 64)],
        tmp_path,
    )
    session = load(path)
    [weight] = session.manifest["variants"][0]["weights"]
    assert weight["dtype"] == "int8"
    x = np.clip(floats(5, 32), -6, 6)
    np.testing.assert_allclose(session(x=x)["y"], x @ (w * np.float32(0.01)), rtol=0, atol=1.0)
