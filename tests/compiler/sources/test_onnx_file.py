from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from leptonc.compiler.errors import OnnxFileError
from leptonc.compiler.sources import external_data
from leptonc.compiler.sources.opening import open_source
from leptonc.compiler.subject import settle_outputs
from leptonc.compiler.verification.trials import reference_trials
from leptonc.runtime.errors import EngineError, InputError, LeptonError, UnsupportedError

WEIGHT = np.arange(4096, dtype=np.float32).reshape(64, 64) / 4096


def write_model(path, *, external=None, op="MatMul", domain=""):
    node = helper.make_node(op, ["x", "w"], ["y"], name="product", domain=domain)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    opsets = [helper.make_opsetid("", 20)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(
        model, path, save_as_external_data=external is not None, location=external, size_threshold=0
    )
    return path


def set_external(path, **entries):
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key in entries:
            entry.value = str(entries[entry.key])
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("external", [None, "w.data"])
def test_an_onnx_file_is_a_source(tmp_path, external):
    source = open_source(str(write_model(tmp_path / "m.onnx", external=external)))
    assert source.axes["x"][0].name == "batch"
    y = source.reference(source.inputs)["y"]
    assert np.allclose(y, source.inputs["x"] @ WEIGHT, atol=1e-5)
    assert source.weight_bytes == WEIGHT.nbytes


def test_the_fingerprint_covers_the_external_data(tmp_path):
    path = write_model(tmp_path / "m.onnx", external="w.data")
    before = open_source(str(path)).fingerprint
    data = bytearray((tmp_path / "w.data").read_bytes())
    data[7] ^= 1
    (tmp_path / "w.data").write_bytes(data)
    assert open_source(str(path)).fingerprint != before


def break_nothing_there(path):
    path.write_bytes(b"")


def break_text(path):
    path.write_text("this is not a model at all, it is prose\n" * 50)


def break_truncated(path):
    path.write_bytes(path.read_bytes()[:-5000])


def break_header_only(path):
    path.write_bytes(path.read_bytes()[:6])


@pytest.mark.parametrize(
    "damage", [break_nothing_there, break_text, break_truncated, break_header_only]
)
def test_a_file_that_is_not_onnx_is_refused(tmp_path, damage):
    path = write_model(tmp_path / "m.onnx")
    damage(path)
    with pytest.raises(OnnxFileError) as caught:
        open_source(str(path))
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)


def missing(path):
    (path.parent / "w.data").unlink()


def too_short(path):
    (path.parent / "w.data").write_bytes(b"x" * 100)


def absolute(path):
    set_external(path, location="/etc/hostname")


def parent(path):
    set_external(path, location="../w.data")


def symlink(path):
    outside = path.parent.parent / "outside.data"
    outside.write_bytes((path.parent / "w.data").read_bytes())
    (path.parent / "w.data").unlink()
    (path.parent / "w.data").symlink_to(outside)


def offset(path):
    set_external(path, offset=1 << 40)


def negative(path):
    set_external(path, offset=-8)


def short_length(path):
    set_external(path, length=8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, "does not exist"),
        (too_short, "is too short: it has 100 bytes"),
        (absolute, "outside the model's folder"),
        (parent, "outside the model's folder"),
        (symlink, "outside the model's folder"),
        (offset, "is too short"),
        (negative, "offset -8"),
        (short_length, "needs 16384 bytes"),
    ],
)
def test_unsafe_or_incomplete_external_data_is_refused(tmp_path, damage, message):
    folder = tmp_path / "model"
    folder.mkdir()
    path = write_model(folder / "m.onnx", external="w.data")
    damage(path)
    with pytest.raises(OnnxFileError) as caught:
        open_source(str(path))
    assert message in caught.value.what
    assert "'w'" in (caught.value.where or "")


def test_an_operator_that_the_engine_lacks_is_named(tmp_path):
    path = write_model(tmp_path / "m.onnx", op="Frobnicate", domain="acme")
    with pytest.raises(LeptonError, match="Frobnicate") as caught:
        open_source(str(path))
    assert caught.value.exit_code == 4


def test_inputs_can_be_given(tmp_path):
    path = write_model(tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.ones((5, 64), np.float32))
    source = open_source(str(path), inputs=tmp_path / "x.npz")
    assert source.inputs["x"].shape == (5, 64)


def test_a_reference_that_fails_names_the_shapes(tmp_path):
    source = open_source(str(write_model(tmp_path / "m.onnx")))
    with pytest.raises(EngineError, match="failed while running") as caught:
        source.reference({"x": np.ones((2, 63), np.float32)})
    assert "x [2, 63]" in (caught.value.where or "")


def write_text(folder, text):
    path = folder / "m.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return str(path)


HEAD = '<ir_version: {ir}, opset_import: ["" : {opset}]> '


@pytest.mark.parametrize(
    ("ir_version", "opset", "message"),
    [(14, 20, "IR version 14, and onnxruntime"), (10, 27, "opset 27, and onnxruntime")],
)
def test_a_file_newer_than_the_engine_is_not_supported(tmp_path, ir_version, opset, message):
    head = HEAD.format(ir=ir_version, opset=opset)
    path = write_text(tmp_path, head + "g (float[2] x) => (float[2] y) { y = Relu(x) }")
    with pytest.raises(UnsupportedError, match=message) as caught:
        open_source(path)
    assert caught.value.exit_code == 4 and caught.value.where == path


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("(float[2] x) => (float[2] y, float[2] y) { y = Relu(x) }", "two outputs"),
        ("(float[1099511627776] x) => (float[n] y) { y = Relu(x) }", "too large"),
        ("(float[2] x) => (float[2] y) { a = Add(x, b) b = Relu(a) y = Relu(b) }", "cycle"),
    ],
)
def test_a_graph_that_no_artifact_can_hold_is_refused(tmp_path, graph, message):
    with pytest.raises(OnnxFileError, match=message):
        open_source(write_text(tmp_path, HEAD.format(ir=10, opset=20) + "g " + graph))


def test_nodes_in_any_order_and_sizes_of_minus_one_are_read(tmp_path):
    text = (
        HEAD.format(ir=10, opset=20) + "g (float[2] x) => (float[2] y) { y = Neg(h) h = Relu(x) }"
    )
    model = onnx.parser.parse_model(text)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    source = open_source(str(tmp_path / "m.onnx"))
    assert [node.op_type for node in source.graph.graph] == ["Relu", "Neg"]
    assert source.axes["x"][0].max is None


@pytest.mark.parametrize(("limit", "in_memory"), [(WEIGHT.nbytes, True), (1, False)])
def test_small_external_weights_are_read_and_large_ones_stay(
    tmp_path, monkeypatch, limit, in_memory
):
    monkeypatch.setattr(external_data, "SMALL", limit)
    path = write_model(tmp_path / "m.onnx", external="w.data")
    tensor = open_source(str(path)).graph.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor) != in_memory
    assert np.array_equal(tensor.numpy(), WEIGHT)


def test_given_inputs_must_be_the_models(tmp_path):
    path = write_model(tmp_path / "m.onnx")
    np.savez(tmp_path / "other.npz", z=np.ones((2, 64), np.float32))
    with pytest.raises(InputError, match="the model takes x"):
        open_source(str(path), inputs=tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("declared", "settled"),
    [
        ("float[n, 4] y", ["n", "4"]),
        ("float[n, 5] y", ["n", "None"]),
        ("float[4, n] y", ["None", "None"]),
        ("float[n, 4, 4] y", ["None", "None"]),
    ],
)
def test_a_signature_says_what_the_file_returns(tmp_path, declared, settled):
    body = HEAD.format(ir=10, opset=20) + f"g (float[n, 4] x) => ({declared}) {{ y = Relu(x) }}"
    source = open_source(write_text(tmp_path, body))
    settle_outputs(source.graph, reference_trials(source))
    shape = source.graph.graph.outputs[0].shape
    assert [str(size if isinstance(size, int) else size.value) for size in shape] == settled
