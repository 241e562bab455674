"""Plans carried out: the form of the graph, what is refused, and how far outputs may move."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonc.backends import parse_target
from leptonc.backends.errors import PlacementError
from leptonc.backends.ort.backend import OrtBackend
from leptonc.backends.ort.integers import read_integers
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.passes.errors import PassRefusedError, PlanError, RangesError
from leptonc.passes.graph.fingerprint import fingerprint
from leptonc.passes.quantize.default_plan import Quantization, default_plan
from leptonc.passes.quantize.plan import LayerChoice, QuantizationPlan, find_layers
from leptonc.passes.quantize.quantize import apply_plan
from leptonc.passes.quantize.scales import scale_for
from leptonc.passes.ranges.table import Ranges
from leptonc.passes.ranges.tensor_range import observe
from leptonc.passes.schedule import LOWER, optimize

CHAIN = """
<ir_version: 9, opset_import: ["" : 20]>
net (float[1, 4, 8, 8] x) => (float[1, 5] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    r = Relu (c)
    d = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
    s = Add (d, r)
    t = Relu (s)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (t)
    g = GlobalAveragePool (p)
    f = Flatten (g)
    y = Gemm <transB = 1> (f, w3, b3)
}
"""
LINEAR = """
<ir_version: 9, opset_import: ["" : 20]>
net (float[batch, 48] x) => (float[batch, 32] y, float[batch, 32] z) {
    m = MatMul (x, w1)
    y = Add (m, b1)
    z = MatMul (x, w2)
}
"""
TABLE = """
<ir_version: 9, opset_import: ["" : 20]>
net (int64[n] i) => (float[n, 128] y) { y = Gather (table, i) }
"""


def model_of(text: str, weights: dict[str, tuple[int, ...]], seed: int = 0) -> ir.Model:
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(seed)
    for name, shape in weights.items():
        array = rng.standard_normal(shape).astype(np.float32)
        value = next(
            value for node in model.graph for value in node.inputs if value and value.name == name
        )
        value.const_value = ir.Tensor(array, name=name)
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
        model.graph.register_initializer(value)
    return model


def chain(seed: int = 0) -> ir.Model:
    weights = {"w1": (6, 4, 3, 3), "b1": (6,), "w2": (6, 6, 3, 3), "b2": (6,), "w3": (5, 6)}
    return model_of(CHAIN, {**weights, "b3": (5,)}, seed)


def linear(seed: int = 0) -> ir.Model:
    return model_of(LINEAR, {"w1": (48, 32), "b1": (32,), "w2": (48, 32)}, seed)


def ranges_of(model: ir.Model, inputs: dict[str, np.ndarray]) -> Ranges:
    names = [
        str(value.name)
        for node in model.graph
        for value in node.outputs
        if not value.is_graph_output()
    ]
    found = {**inputs, **GraphRunner(model.clone(), extra_outputs=names)(inputs)}
    tensors = {name: observe(array) for name, array in found.items()}
    return Ranges(fingerprint(model), 1, 1, tensors, {})


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def test_integers_flow_through_a_whole_chain_on_onnxruntime(tmp_path: Path) -> None:
    model = chain()
    inputs = {"x": np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)}
    before = GraphRunner(model)(inputs)["y"]
    ranges = ranges_of(model, inputs)
    plan = default_plan(model, "ort-cpu", "int8", ranges, Quantization(range_method="minmax"))
    stats = apply_plan(model, plan, ranges, "ort-cpu")
    assert dict(stats.counts) == {"static": 3}
    # What an activation ends is quantised after it, and pooling shares the scale of its input.
    producers = {
        str(node.inputs[0].name)
        for node in model.graph
        if node.op_type == "QuantizeLinear" and node.inputs[0] is not None
    }
    assert producers == {"x", "r", "d", "t", "p", "g", "f"}
    after = GraphRunner(model)(inputs)["y"]
    assert np.linalg.norm(after - before) < 0.05 * np.linalg.norm(before)
    payload = OrtBackend().build(model, parse_target("ort-cpu", precision="int8"), tmp_path)
    assert Counter(payload.integers.values()) == {"QLinearConv": 2, "QGemm": 1}
    ran = payload.placement["CPUExecutionProvider"]
    assert not {"Conv", "Add", "Relu", "Gemm", "GlobalAveragePool"} & ran.keys()
    # Only the input is rounded on its own; all else stays in integers from end to end.
    assert ran["QuantizeLinear"] == 1
    assert ran.get("DequantizeLinear", 0) == 0


def test_other_targets_get_symmetric_integers_without_integer_biases() -> None:
    model = chain()
    inputs = {"x": np.ones((1, 4, 8, 8), np.float32)}
    ranges = ranges_of(model, inputs)
    apply_plan(model, default_plan(model, "primitive", "int8", ranges), ranges, "primitive")
    constants = model.graph.initializers
    types = {value.const_value.dtype for value in constants.values() if value.const_value}
    assert types == {ir.DataType.FLOAT, ir.DataType.INT8}
    zeros = [value for name, value in constants.items() if "zero_point" in str(name)]
    assert zeros
    assert all(not value.const_value.numpy().any() for value in zeros if value.const_value)


def test_dynamic_layers_of_one_input_round_it_once(tmp_path: Path) -> None:
    model = linear()
    x = {"x": np.random.default_rng(2).standard_normal((3, 48)).astype(np.float32)}
    before = GraphRunner(model)(x)
    plan = default_plan(model, "ort-cpu", "int8", None)
    assert [choice.method for choice in plan.choices] == ["dynamic", "dynamic"]
    apply_plan(model, plan, None, "ort-cpu")
    assert operators(model)["DynamicQuantizeLinear"] == 1
    assert operators(model)["MatMulInteger"] == 2
    for name, array in GraphRunner(model)(x).items():
        assert np.linalg.norm(array - before[name]) < 0.02 * np.linalg.norm(before[name])
    payload = OrtBackend().build(model, parse_target("ort-cpu", precision="int8"), tmp_path)
    assert set(payload.integers) == {"m", "z"}
    assert "MatMul" not in payload.placement["CPUExecutionProvider"]


@pytest.mark.parametrize(("precision", "block", "limit"), [("int8", 32, 0.02), ("int4", 16, 0.2)])
def test_weights_in_blocks(precision: str, block: int, limit: float) -> None:
    model = linear()
    x = {"x": np.random.default_rng(2).standard_normal((3, 48)).astype(np.float32)}
    before = GraphRunner(model)(x)
    asked = Quantization(method="weight-only", block=block)
    apply_plan(model, default_plan(model, "ort-cpu", precision, None, asked), None, "ort-cpu")
    assert operators(model)["MatMulNBits"] == 2
    for name, array in GraphRunner(model)(x).items():
        assert np.linalg.norm(array - before[name]) < limit * np.linalg.norm(before[name])


def test_a_table_keeps_each_row_to_its_own_step() -> None:
    model = model_of(TABLE, {"table": (200, 128)})
    tensor = model.graph.initializers["table"].const_value
    assert tensor is not None
    table = tensor.numpy().copy()
    apply_plan(model, default_plan(model, "ort-cpu", "int8", None), None, "ort-cpu")
    index = np.array([3, 0, 199, 3], dtype=np.int64)
    found = GraphRunner(model)({"i": index})["y"]
    step = np.abs(table[index]).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - table[index]) <= 0.501 * step).all()


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    magnitude=st.sampled_from([1e-6, 1.0, 1e4]),
    shift=st.sampled_from([-3.0, 0.0, 3.0]),
    target=st.sampled_from(["ort-cpu", "primitive"]),
)
def test_static_outputs_move_by_no_more_than_the_scales_imply(
    seed: int, magnitude: float, shift: float, target: str
) -> None:
    model = linear(seed)
    rng = np.random.default_rng(seed)
    x = ((rng.standard_normal((4, 48)) + shift) * magnitude).astype(np.float32)
    ranges = ranges_of(model, {"x": x})
    before = GraphRunner(model)({"x": x})
    asked = Quantization(method="static", range_method="minmax")
    plan = default_plan(model, target, "int8", ranges, asked)
    weights = {name: model.graph.initializers[name].const_value for name in ("w1", "w2")}
    kept = {name: tensor.numpy().copy() for name, tensor in weights.items() if tensor}
    apply_plan(model, plan, ranges, target)
    low, high = ranges.range("x", "minmax", symmetric=target != "ort-cpu")
    step = scale_for(low, high, symmetric=target != "ort-cpu").step
    after = GraphRunner(model)({"x": x})
    for name, weight in (("y", kept["w1"]), ("z", kept["w2"])):
        # |x'w' - xw| <= |x' - x||w'| + |x||w' - w|, each element off by half a step; the zero
        # point is rounded as well, so the ends of the range may be off by a whole one.
        half = np.abs(weight).max(axis=0) / 127 / 2
        bound = (
            step * (np.abs(weight).sum(axis=0) + 48 * half) + np.abs(x).sum(axis=1)[:, None] * half
        )
        assert (np.abs(after[name] - before[name]) <= bound * 1.001 + 1e-6 * magnitude).all()


def test_a_bias_that_does_not_fit_int32_widens_its_channel() -> None:
    model = chain()
    for name, value in (("w1", 1e-12), ("b1", 100.0)):
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        array = tensor.numpy().copy()
        array[0] = value
        model.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    inputs = {"x": np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)}
    before = GraphRunner(model.clone(), extra_outputs=["c"])(inputs)["c"]
    ranges = ranges_of(model, inputs)
    plan = default_plan(model, "ort-cpu", "int8", ranges)
    apply_plan(model, plan, ranges, "ort-cpu")
    after = GraphRunner(model.clone(), extra_outputs=["c"])(inputs)["c"]
    assert np.allclose(after[:, 0], before[:, 0], rtol=1e-3)


def test_a_range_that_is_not_known_is_refused() -> None:
    model = chain()
    ranges = Ranges(fingerprint(model), 1, 1, {}, {})
    plan = default_plan(model, "ort-cpu", "int8", ranges)
    with pytest.raises(RangesError, match="knows nothing of tensor 'x'"):
        apply_plan(model, plan, ranges, "ort-cpu")


def test_no_ranges_no_static_layers() -> None:
    with pytest.raises(PassRefusedError, match="no data, no INT8"):
        default_plan(chain(), "ort-cpu", "int8", None)


def test_a_plan_for_another_graph_is_refused() -> None:
    plan = QuantizationPlan((LayerChoice("elsewhere", "dynamic"),))
    with pytest.raises(PassRefusedError, match="'elsewhere', which is no layer"):
        apply_plan(linear(), plan, None, "ort-cpu")


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (LayerChoice("c", "dynamic"), "a convolution is static"),
        (LayerChoice("c", "weight-only", bits=4), "one scale of 8 bits"),
        (LayerChoice("y", "dynamic", bits=4), "4 bits are for weight-only"),
        (LayerChoice("y", "weight-only", block=17), "blocks of 17"),
        (LayerChoice("y", "sometimes"), "is not one of"),
    ],
)
def test_choices_that_cannot_be_are_refused(choice: LayerChoice, reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        apply_plan(chain(), QuantizationPlan((choice,)), None, "ort-cpu")


def test_a_weight_that_is_not_finite_is_refused() -> None:
    model = linear()
    model.graph.initializers["w1"].const_value = ir.Tensor(np.full((48, 32), np.nan, np.float32))
    with pytest.raises(PlanError, match="NaN or infinity"):
        apply_plan(model, default_plan(model, "ort-cpu", "int8", None), None, "ort-cpu")


def test_a_layer_that_the_engine_computes_in_float_is_an_error() -> None:
    model = linear()
    apply_plan(model, default_plan(model, "ort-cpu", "int8", None), None, "ort-cpu")
    built = model.clone()
    for node in built.graph:
        if node.op_type == "MatMulInteger":
            node.op_type = "MatMul"
            break
    with pytest.raises(PlacementError, match="the layer 'm' was asked for in integers"):
        read_integers(model, built)


def test_plans_survive_json() -> None:
    model = chain()
    plan = default_plan(model, "ort-cpu", "int4", None)
    assert QuantizationPlan.from_json(plan.to_json()) == plan
    with pytest.raises(PlanError, match="not a choice"):
        LayerChoice.from_json({"layer": "c"})


def test_four_bits_fill_blocks_off_onnx_runtime() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    net (float[2, 192] x) => (float[2, 10] y) {
        a = MatMul(x, w1)
        b = MatMul(a, w2)
        y = Gemm <transB = 1> (b, w3)
    }
    """
    model = model_of(text, {"w1": (192, 160), "w2": (160, 20), "w3": (10, 20)})
    x = {"x": np.random.default_rng(2).standard_normal((2, 192)).astype(np.float32)}
    before = GraphRunner(model)(x)["y"]
    plan = default_plan(model, "primitive", "int4", None)
    assert [choice.block for choice in plan.choices] == [64, 32, 0]
    assert "its 20 rows do not fill blocks of 64 or 32 or 16" in plan["y"].reason
    apply_plan(model, plan, None, "primitive")
    integers = [t for t in model.graph.initializers.values() if t.dtype == ir.DataType.INT4]
    assert [list(each.shape.numpy()) for each in integers] == [[192, 160], [160, 20]]
    after = GraphRunner(model)(x)["y"]
    assert 0 < np.linalg.norm(after - before) < 0.3 * np.linalg.norm(before)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_block_that_no_layer_fills_is_refused(precision: str) -> None:
    asked = Quantization(method="weight-only", block=256)
    with pytest.raises(PassRefusedError, match="nothing in this graph") as refused:
        default_plan(linear(), "primitive", precision, None, asked)
    assert "48 rows do not fill blocks of 256" in str(refused.value.where)


def test_static_layers_have_no_blocks() -> None:
    model = linear()
    ranges = ranges_of(model, {"x": np.ones((2, 48), np.float32)})
    with pytest.raises(PassRefusedError, match="no blocks"):
        default_plan(model, "primitive", "int8", ranges, Quantization(block=16))


def test_layers_have_sizes_and_names() -> None:
    layers = {layer.name: layer for layer in find_layers(chain())}
    assert list(layers) == ["c", "d", "y"]
    assert layers["c"].parameters == 6 * 4 * 9
    assert layers["c"].inputs == ("x",)


@pytest.mark.parametrize("target", ["ort-cpu", "ort-cuda", "primitive"])
def test_what_is_lowered_afterwards_leaves_quantised_layers_alone(target: str) -> None:
    model = chain()
    x = {"x": np.random.default_rng(5).standard_normal((1, 4, 8, 8)).astype(np.float32)}
    ranges = ranges_of(model, x)
    plan = default_plan(model, target, "int8", ranges, Quantization(method="static"))
    apply_plan(model, plan.in_float(["d"]), ranges, target)
    before, answer = Counter(node.op_type for node in model.graph), GraphRunner(model)(x)["y"]
    optimize(model, target=target, since=LOWER)
    after = Counter(node.op_type for node in model.graph)
    for kept in ("QuantizeLinear", "DequantizeLinear", "Gemm"):
        assert after[kept] == before[kept]
    # The first convolution is quantised; the second, in float, takes its sum in on CUDA alone.
    assert after["FusedConv"] == (target == "ort-cuda")
    assert np.allclose(GraphRunner(model)(x)["y"], answer, atol=1e-5) or target == "ort-cuda"
