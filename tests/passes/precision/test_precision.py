"""Half the width by explicit casts: what computes in it, what does not, and what comes out."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from text_graphs import parse_text, weight

from leptonc.passes import optimize
from leptonc.passes.errors import PassRefusedError
from leptonc.passes.pipeline import Context, run_passes
from leptonc.passes.precision.emulation import emulate_half
from leptonc.passes.precision.half_types import BF16, FP16, survey
from leptonc.passes.precision.precision import Precision

HALF = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
# How far one rounding moves a number, and a sum of some of them.
STEP = {"fp16": 2.0**-11, "bf16": 2.0**-8}


def narrow(model, precision="fp16", **options):
    """Run the pass, check the graph, and return what it did."""
    stats = run_passes(model, (Precision(precision, **options),))[0]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return stats


def types(model):
    """Return the element types that were declared of inner values, by name."""
    return {
        value.name: value.dtype
        for node in model.graph
        for value in node.outputs
        if value.dtype is not None
    }


def kept(stats):
    return {r.node or "?": r.reason.removeprefix("stays in float32: ") for r in stats.refused}


def name_nodes(model):
    for node in model.graph.all_nodes():
        node.name = node.outputs[0].name
    return model


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_products_are_narrow_and_the_interface_is_not(parse, precision):
    model = parse("g (float[2,4] x) => (float[2,3] y) { h = MatMul(x, w) y = Relu(h) }")
    weight(model, "w", np.ones((4, 3), np.float32))
    stats = narrow(model, precision)
    assert dict(stats.counts) == {"casts": 2, "half-width-nodes": 2, "half-width-weights": 1}
    assert [node.op_type for node in model.graph] == ["Cast", "MatMul", "Relu", "Cast"]
    assert types(model)["h"] == HALF[precision]
    assert model.graph.outputs[0].name == "y"
    assert model.graph.outputs[0].dtype == ir.DataType.FLOAT


STAYS = [
    ("y = Exp(x)", "another order of magnitude"),
    ("y = Pow(x, x)", "another order of magnitude"),
    ("y = ReduceSum <keepdims = 1> (x)", "a sum of 16 bits"),
    ("y = Sin(x)", "by their last bits"),
    ("y = Softplus(x)", "another order of magnitude"),
    ("a = Cast <to = 7> (x) b = Cast <to = 1> (a) y = Mul(b, b)", "whole numbers"),
    ("y = test.Own(x)", "no rule says"),
]


@pytest.mark.parametrize(("body", "reason"), STAYS)
def test_what_stays_in_float32_is_said_with_a_reason(parse, body, reason):
    shape = "1,1" if "Reduce" in body else "2,4"
    model = name_nodes(
        parse(
            f"g (float[2,4] x, float[2,4] z) => (float[{shape}] y, float[2,4] q) "
            f"{{ {body} q = Relu(z) }}"
        )
    )
    stats = run_passes(model, (Precision("fp16"),))[0]
    assert reason in kept(stats)["y"]
    assert types(model).get("y", ir.DataType.FLOAT) == ir.DataType.FLOAT


def test_what_joins_two_chains_stays_and_what_follows_is_narrow(parse):
    model = name_nodes(
        parse(
            """g (float[2,4] x) => (float[2,4] y) {
              e = Exp(x) s = ReduceSum <keepdims = 1> (e, axes) p = Div(e, s) y = Relu(p)
            }"""
        )
    )
    weight(model, "axes", np.array([1], np.int64))
    stats = narrow(model)
    assert set(kept(stats)) == {"e", "s", "p"}
    assert "p" not in types(model)
    assert [n.op_type for n in model.graph] == ["Exp", "ReduceSum", "Div", "Cast", "Relu", "Cast"]


def test_a_chain_ends_where_it_meets_a_narrow_value(parse):
    model = name_nodes(
        parse(
            """g (float[2,4] x) => (float[2,4] y) {
              h = Relu(x) e = Exp(x) m = Mul(h, e) a = Add(m, h) y = Tanh(a)
            }"""
        )
    )
    narrow(model)
    found = types(model)
    assert "m" not in found
    assert found["a"] == ir.DataType.FLOAT16


def test_angles_are_not_narrowed(parse):
    model = name_nodes(
        parse("g (float[8] t) => (float[8] y) { a = Mul(t, f) c = Cos(a) y = Relu(c) }")
    )
    weight(model, "f", np.linspace(0.1, 1, 8).astype(np.float32))
    assert kept(narrow(model))["a"] == "it computes an angle"


def test_positions_reach_their_tables_in_float32(parse, run):
    """Half the width does not tell position 4097 from 4096."""
    text = """g (int64[3] p, float[3,2] q) => (float[3,2] y) {
      f = Cast <to = 1> (p) u = Unsqueeze(f, one) a = MatMul(u, w) c = Cos(a) y = Mul(q, c)
    }"""
    model = name_nodes(parse(text))
    weight(model, "one", np.array([1], np.int64))
    weight(model, "w", np.array([[1.0, 0.5]], np.float32))
    feeds = {"p": np.array([4096, 4097, 9999]), "q": np.ones((3, 2), np.float32)}
    expected = run(model.clone(), feeds)[0]
    narrow(model)
    np.testing.assert_allclose(run(emulate_half(model), feeds)[0], expected, atol=2e-3)


class TestWeights:
    def test_one_outside_the_range_keeps_its_node(self, parse):
        model = name_nodes(
            parse("g (float[2,4] x) => (float[2,4] y) { h = MatMul(x, w) y = MatMul(h, v) }")
        )
        weight(model, "w", np.full((4, 4), 1e5, np.float32))
        weight(model, "v", np.ones((4, 4), np.float32))
        reasons = kept(narrow(model))
        assert reasons == {
            "h": "its weight 'w': 16 elements up to 100000 are outside the range of fp16, "
            "which ends at 65504"
        }
        assert model.graph.initializers["w"].dtype == ir.DataType.FLOAT

    def test_bfloat16_holds_it(self, parse):
        model = parse("g (float[2,4] x) => (float[2,4] y) { y = MatMul(x, w) }")
        weight(model, "w", np.full((4, 4), 1e5, np.float32))
        assert narrow(model, "bf16").refused == ()

    def test_one_that_would_vanish_keeps_its_node(self, parse):
        model = name_nodes(parse("g (float[2,4] x) => (float[2,4] y) { y = Add(x, w) }"))
        weight(model, "w", np.full((4,), 1e-9, np.float32))
        assert "and 4 would become zero" in kept(narrow(model))["y"]

    def test_a_few_that_vanish_beside_larger_ones_do_no_harm(self, parse):
        model = parse("g (float[2,4] x) => (float[2,4] y) { y = Add(x, w) }")
        weight(model, "w", np.array([1e-9, 1, 2, 3], np.float32))
        assert narrow(model).refused == ()

    def test_infinities_stay_what_they_are(self, parse, run):
        model = parse("g (float[2,2] x) => (float[2,2] y) { s = Add(x, w) y = Softmax(s) }")
        weight(model, "w", np.array([[0, -np.inf]], np.float32))
        assert narrow(model).refused == ()
        got = run(emulate_half(model), {"x": np.ones((2, 2), np.float32)})[0]
        np.testing.assert_array_equal(got, [[1, 0], [1, 0]])

    def test_one_that_two_nodes_read_is_stored_once(self, parse):
        model = parse("g (float[4,4] x) => (float[4,4] y) { h = MatMul(x, w) y = MatMul(h, w) }")
        weight(model, "w", np.eye(4, dtype=np.float32))
        assert dict(narrow(model).counts)["half-width-weights"] == 1

    def test_they_are_converted_when_they_are_read(self, parse):
        reads = []

        def make():
            reads.append(1)
            return ir.Tensor(np.ones((64, 64), np.float32))

        model = parse("g (float[2,64] x) => (float[2,64] y) { y = MatMul(x, w) }")
        weight(model, "w", np.ones((64, 64), np.float32))
        lazy = ir.LazyTensor(make, dtype=ir.DataType.FLOAT, shape=ir.Shape([64, 64]), name="w")
        model.graph.initializers["w"].const_value = lazy
        narrow_stats = run_passes(model, (Precision("fp16"),))[0]
        assert dict(narrow_stats.counts)["half-width-weights"] == 1
        looked = len(reads)
        value = next(v for v in model.graph.initializers.values() if v.dtype == HALF["fp16"])
        assert value.const_value.numpy().dtype == np.float16
        assert len(reads) >= looked


FILLS = [-1e9, np.finfo(np.float32).min]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("fill", FILLS)
def test_masks_leave_out_the_same_keys(parse, run, precision, fill):
    """A number that stands for "no key here" gets the lowest that leaves room for a score."""
    text = """g (float[2,8] s, bool[2,8] keep) => (float[2,8] y) {
      m = Where(keep, zero, fill) t = Add(s, m) y = Softmax(t)
    }"""
    model = parse(text)
    weight(model, "zero", np.array(0, np.float32))
    weight(model, "fill", np.array(fill, np.float32))
    scores = np.linspace(-4, 4, 16).astype(np.float32).reshape(2, 8)
    keep = np.array([[1, 0, 1, 1, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0, 0, 0]], bool)
    feeds = {"s": scores, "keep": keep}
    expected = run(model.clone(), feeds)[0]
    assert narrow(model, precision).refused == ()
    got = run(emulate_half(model), feeds)[0]
    np.testing.assert_array_equal(got == 0, ~keep | (expected == 0))
    np.testing.assert_allclose(got, expected, atol=40 * STEP[precision])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_row_without_a_key_gives_numbers(parse, run, precision):
    text = "g (float[1,4] s) => (float[1,4] y) { t = Add(s, m) y = Softmax(t) }"
    model = parse(text)
    weight(model, "m", np.full((1, 4), np.finfo(np.float32).min, np.float32))
    narrow(model, precision)
    got = run(emulate_half(model), {"s": np.full((1, 4), -40, np.float32)})[0]
    np.testing.assert_array_equal(got, np.full((1, 4), 0.25, np.float32))


def test_a_low_number_that_is_no_mask_keeps_its_node(parse):
    model = name_nodes(parse("g (float[4] x) => (float[4] y) { y = Max(x, w) }"))
    weight(model, "w", np.array([-1e9], np.float32))
    assert "outside the range" in kept(narrow(model))["y"]


def test_a_mask_that_is_an_output_too_is_not_clamped(parse):
    text = "g (float[4] x) => (float[4] y, float[4] t) { t = Add(x, m) y = Softmax(t) }"
    model = name_nodes(parse(text))
    weight(model, "m", np.array([-1e9, 0, 0, 0], np.float32))
    assert "t" in kept(narrow(model))


BRANCHES = """g (float[2,2] x, bool c) => (float[2,2] y) {
  h = MatMul(x, w)
  r = If (c) <
    then_branch = yes () => (float[2,2] a) { a = MatMul(h, w) },
    else_branch = no () => (float[2,2] b) { b = Neg(h) }
  >
  y = Relu(r)
}"""
LOOP = """g (float[2,2] x, int64 n, bool c) => (float[2,2] y) {
  y = Loop (n, c, x) <
    body = b (int64 i, bool k, float[2,2] s) => (bool k2, float[2,2] t) {
      k2 = Identity(k) t = MatMul(s, w)
    }
  >
}"""


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(
    ("text", "more"),
    [
        (BRANCHES, {"c": np.array(True)}),
        (BRANCHES, {"c": np.array(False)}),
        (LOOP, {"n": np.array(3), "c": np.array(True)}),
    ],
)
def test_bodies_compute_narrow_and_talk_in_float32(parse, run, precision, text, more):
    model = parse(text)
    weight(model, "w", np.array([[0.5, 0.25], [-0.5, 1]], np.float32))
    feeds = {"x": np.array([[1, 2], [3, 4.5]], np.float32), **more}
    expected = run(model.clone(), feeds)[0]
    narrow(model, precision)
    inner = [n for g in model.graph.subgraphs() for n in g if n.op_type == "MatMul"]
    assert {n.outputs[0].dtype for n in inner} == {HALF[precision]}
    assert all(
        v.dtype == ir.DataType.FLOAT
        for g in model.graph.subgraphs()
        for v in g.outputs
        if v.name != "k2"
    )
    got = run(emulate_half(model), feeds)[0]
    np.testing.assert_allclose(got, expected, rtol=20 * STEP[precision], atol=1e-6)


def test_statistics_of_a_normalisation_stay(parse):
    text = """g (float[2,4] x) => (float[2,4] y, float[2,1] m) {
      y, m = LayerNormalization(x, s)
    }"""
    model = parse(text)
    weight(model, "s", np.ones(4, np.float32))
    narrow(model)
    assert model.graph.outputs[1].producer().op_type == "LayerNormalization"


def test_an_input_that_is_an_output_stays(parse):
    model = parse("g (float[2] x) => (float[2] y) { y = Identity(x) }")
    stats = run_passes(model, (Precision("fp16"),))[0]
    assert model.graph.outputs[0].dtype == ir.DataType.FLOAT
    assert stats.nodes_after == len(model.graph)


def test_nodes_can_be_kept_by_name(parse):
    model = name_nodes(parse("g (float[2] x) => (float[2] y) { h = Relu(x) y = Tanh(h) }"))
    assert kept(narrow(model, keep=frozenset({"h"}))) == {"h": "it was asked to stay"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"keep": frozenset({"nope"})}, "there is no node 'nope' to keep"),
        ({"precision": "fp8"}, "'fp8' is not one of fp16, bf16"),
    ],
)
def test_what_cannot_be_done_is_refused(parse, options, reason):
    model = parse("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    with pytest.raises(PassRefusedError, match=reason):
        run_passes(model, (Precision(**options),))


def test_bfloat16_raises_the_opset_where_that_changes_nothing(parse):
    text = "g (float[1,2,4,4] x) => (float[1,2,2,2] y) { y = MaxPool <kernel_shape=[3,3]> (x) }"
    model = parse(text)
    narrow(model, "bf16")
    assert model.opset_imports[""] == 22
    assert types(model)["y_bf16"] == ir.DataType.BFLOAT16


def test_bfloat16_says_what_onnx_has_no_type_for(parse):
    text = "g (float[1,2,4,4] x) => (float[1,2,2,2] y) { y = MaxPool <kernel_shape=[3,3],ceil_mode=1> (x) }"
    model = name_nodes(parse(text))
    assert kept(run_passes(model, (Precision("bf16"),))[0]) == {
        "y": "ONNX has no bfloat16 MaxPool at opset 20"
    }


def test_on_cuda_what_has_no_kernel_stays(parse):
    model = name_nodes(
        parse("g (float[1,2,4,4] x) => (float[1,2,2,2] y) { y = MaxPool <kernel_shape=[3,3]> (x) }")
    )
    stats = run_passes(model, (Precision("bf16"),), Context("ort-cuda"))[0]
    assert "opset 20" in kept(stats)["y"]
    assert model.opset_imports[""] == 20


@pytest.mark.parametrize("half", [FP16, BF16])
def test_a_survey_reads_in_pieces(half, monkeypatch):
    monkeypatch.setattr("leptonc.passes.precision.half_types._PIECE", 3)
    values = np.array([1, -2, 3.3, 1e-9, -7e4, np.inf, 0, -4e38 / 2, 5], np.float32)
    found = survey(ir.Tensor(values), half)
    assert found.beyond == (2 if half is FP16 else 0)
    assert found.lost == (1 if half is FP16 else 0)
    assert not found.positive_beyond
    if half is FP16:
        assert found.farthest == pytest.approx(-2e38)


class TestEmulation:
    """The emulation rounds where the engines round, and nothing else is half as wide."""

    def test_it_equals_rounding_by_hand(self, parse, run):
        model = parse("g (float[3] x) => (float[3] y) { h = Mul(x, x) y = Add(h, x) }")
        narrow(model)
        x = np.array([1.2345, 0.001, 200.7], np.float32)
        a = x.astype(np.float16)
        h = (a.astype(np.float32) ** 2).astype(np.float16)
        y = (h.astype(np.float32) + a.astype(np.float32)).astype(np.float16)
        got = run(emulate_half(model), {"x": x})[0]
        np.testing.assert_array_equal(got, y.astype(np.float32))

    def test_names_and_the_interface_stay(self, parse):
        model = parse("g (float[3] x) => (float[3] y) { h = Mul(x, x) y = Add(h, x) }")
        narrow(model)
        emulation = emulate_half(model)
        assert {"h", "y"} <= {v.name for n in emulation.graph for v in n.outputs}
        computing = [n for n in emulation.graph if n.op_type != "Cast"]
        assert {v.dtype for n in computing for v in n.outputs} == {ir.DataType.FLOAT}

    @pytest.mark.parametrize("kind", ["float16", "bfloat16"])
    def test_a_half_interface_keeps_its_types(self, parse, kind):
        model = parse(f"g ({kind}[3] x) => ({kind}[3] y) {{ y = Mul(x, x) }}")
        emulation = emulate_half(model)
        assert emulation.graph.inputs[0].dtype == model.graph.inputs[0].dtype
        assert emulation.graph.outputs[0].dtype == model.graph.inputs[0].dtype
        onnx.checker.check_model(ir.to_proto(emulation), full_check=True)

    def test_onnx_runtime_agrees_where_it_has_kernels(self, parse, run):
        """ONNX Runtime runs float16 on a CPU by casts of its own, fewer than ours."""
        model = parse("g (float[4,8] x) => (float[4,8] y) { h = MatMul(x, w) y = Relu(h) }")
        weight(model, "w", np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32))
        narrow(model)
        feeds = {"x": np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32)}
        np.testing.assert_allclose(
            run(emulate_half(model), feeds)[0], run(model, feeds)[0], atol=4e-3
        )


UNARY = ("Relu", "Tanh", "Sigmoid", "Neg", "Exp", "Softmax", "Identity")
BINARY = ("Add", "Mul", "Sub", "MatMul", "Max", "Where")


@st.composite
def texts(draw):
    """Draw a graph over [4, 4] values: chains, joins, shared values, several outputs, a branch."""
    values, lines = ["x", "z"], []
    for number in range(draw(st.integers(2, 8))):
        name = f"v{number}"
        operands = [draw(st.sampled_from([*values, "w"])) for _ in range(2)]
        kind = draw(st.sampled_from((*UNARY, *BINARY)))
        if kind == "Where":
            lines.append(f"c{number} = Less(x, z) {name} = Where(c{number}, {', '.join(operands)})")
        elif kind in BINARY:
            lines.append(f"{name} = {kind}({', '.join(operands)})")
        else:
            lines.append(f"{name} = {kind}({operands[0]})")
        values.append(name)
    if draw(st.booleans()):
        inner = draw(st.sampled_from(values))
        lines.append(
            f"b = If(k) <then_branch = t () => (float[4,4] p) {{ p = MatMul({inner}, w) }}, "
            f"else_branch = e () => (float[4,4] q) {{ q = Tanh({inner}) }}>"
        )
        values.append("b")
    made = values[2:]
    outputs = sorted({made[-1], draw(st.sampled_from(made))})
    declared = ", ".join(f"float[4,4] {name}" for name in outputs)
    return f"g (float[4,4] x, float[4,4] z, bool k) => ({declared}) {{ {' '.join(lines)} }}"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=texts(), precision=st.sampled_from(("fp16", "bf16")), seed=st.integers(0, 99))
def test_any_graph_computes_the_same_up_to_rounding(text, precision, seed):
    generator = np.random.default_rng(seed)
    model = parse_text(text)
    weight(model, "w", generator.uniform(-0.5, 0.5, (4, 4)).astype(np.float32))
    feeds = {
        "x": generator.uniform(-1, 1, (4, 4)).astype(np.float32),
        "z": generator.uniform(-1, 1, (4, 4)).astype(np.float32),
        "k": np.array(bool(seed % 2)),
    }
    expected = run_plain(model.clone(), feeds)
    narrow(model, precision)
    again = run_passes(model.clone(), (Precision(precision),))[0]
    assert again.changed == 0
    optimize(model)
    for got, want in zip(run_plain(emulate_half(model), feeds), expected, strict=True):
        # Exp of Exp makes small differences large: the bound follows the largest number.
        if np.isfinite(want).all() and np.abs(want).max() < 100:
            np.testing.assert_allclose(got, want, atol=150 * STEP[precision])


def run_plain(model, feeds):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = {value.name for value in session.get_inputs()}
    return session.run(None, {name: value for name, value in feeds.items() if name in wanted})
