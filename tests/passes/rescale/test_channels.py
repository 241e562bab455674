"""Factors that move by channel: the outputs keep their bits, and what cannot move stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonc.passes.pipeline import run_passes
from leptonc.passes.rescale.channels import find_scalable, scale_channels
from leptonc.passes.rescale.equalize import Equalize
from leptonc.passes.rescale.smooth import Smooth, Smoothing, find_smoothable, smoothing_powers


def model(body, weights, inputs="float[N, 4, 6, 6] x", outputs="float[N, M, P, Q] y"):
    """Return a model whose constants are given as arrays by name."""
    declared = ", ".join(
        f"float[{', '.join(map(str, array.shape))}] {name}" for name, array in weights.items()
    )
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    g ({inputs}{", " if declared else ""}{declared}) => ({outputs}) {{ {body} }}"""
    found = ir.from_onnx_text(text)
    for value in list(found.graph.inputs):
        if value.name in weights:
            found.graph.inputs.remove(value)
            value.const_value = ir.Tensor(weights[value.name], name=value.name)
            found.graph.register_initializer(value)
    return found


def run(found, **inputs):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        ir.to_proto(found).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def floats(seed, *shape, spread=2.0):
    """Return weights whose first axis has channels of very different size."""
    chance = np.random.default_rng(seed)
    sizes = np.exp(chance.normal(0, spread, (shape[0], *[1] * (len(shape) - 1))))
    return (chance.standard_normal(shape) * sizes).astype(np.float32)


CONVOLUTIONS = "a = Conv(x, w, b) r = Relu(a) y = Conv(r, v)"


def convolutions(seed=0):
    return {
        "w": floats(seed, 5, 4, 3, 3),
        "b": floats(seed + 1, 5),
        "v": floats(seed + 2, 3, 5, 1, 1),
    }


def test_equalised_convolutions_keep_the_bits_of_their_output():
    found = model(CONVOLUTIONS, convolutions())
    x = floats(9, 2, 4, 6, 6)
    (before,) = run(found, x=x)
    (stats,) = run_passes(found, (Equalize(),))
    assert dict(stats.counts) == {"tensors scaled": 1}
    (after,) = run(found, x=x)
    np.testing.assert_array_equal(before, after)


def test_equalised_channels_are_within_a_factor_of_two():
    found = model(CONVOLUTIONS, convolutions())
    run_passes(found, (Equalize(),))
    first = np.abs(found.graph.initializers["w"].const_value.numpy()).max(axis=(1, 2, 3))
    second = np.abs(found.graph.initializers["v"].const_value.numpy()).max(axis=(0, 2, 3))
    ratio = first / second
    assert ratio.max() <= 2.0
    assert ratio.min() >= 0.5


def test_equalising_twice_changes_nothing():
    found = model(CONVOLUTIONS, convolutions())
    run_passes(found, (Equalize(),))
    assert run_passes(found, (Equalize(),))[0].changed == 0


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 1000),
    st.sampled_from(["Relu", "LeakyRelu", "Identity", "AveragePool<kernel_shape=[2,2]>"]),
    st.booleans(),
    st.lists(st.integers(-6, 6), min_size=5, max_size=5),
)
def test_any_powers_keep_the_bits(seed, between, second_reader, powers):
    weights = convolutions(seed)
    operator, _, rest = between.partition("<")
    attributes = f"<{rest}" if rest else ""
    body = f"a = Conv(x, w, b) r = {operator} {attributes} (a) p = Conv(r, v)"
    if second_reader:
        weights["u"] = floats(seed + 3, 3, 5, 1, 1)
        body += " q = Conv(r, u) y = Add(p, q)"
    else:
        body += " y = Neg(p)"
    found = model(body, weights)
    x = floats(seed + 7, 1, 4, 6, 6)
    (before,) = run(found, x=x)
    (scalable,), _ = find_scalable(found)
    assert len(scalable.readers) == 1 + second_reader
    scale_channels(scalable, powers)
    (after,) = run(found, x=x)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Conv(x, w, b) r = Tanh(a) y = Conv(r, v)", ""),
        (
            "a = Conv(x, w, b) r = Relu(a) p = Conv(r, v) s = Tanh(r) y = Concat<axis=1>(p, s)",
            "Tanh",
        ),
        ("a = Conv(x, w, b) y = Conv(a, v) z = Identity(a)", ""),
    ],
)
def test_a_tensor_with_another_reader_stays(body, reason):
    outputs = "float[N, M, P, Q] y" + (", float[N, 5, P, Q] z" if " z " in body else "")
    found = model(body, convolutions(), outputs=outputs)
    assert Equalize().run(found).changed == 0
    scalable, refused = find_scalable(found)
    assert not [each for each in scalable if each.readers]
    if reason:
        assert reason in refused[0].reason


def test_a_weight_with_two_readers_stays():
    weights = {"w": floats(0, 4, 4, 1, 1), "v": floats(1, 4, 4, 1, 1)}
    found = model("a = Conv(x, w) r = Relu(a) p = Conv(r, v) q = Conv(x, v) y = Add(p, q)", weights)
    assert find_scalable(found)[0] == ()


def test_a_grouped_convolution_stays_and_a_depthwise_one_follows():
    depthwise = {"w": floats(0, 4, 4, 1, 1), "v": floats(1, 4, 1, 3, 3)}
    body = "a = Conv(x, w) y = Conv<group=4>(a, v)"
    found = model(body, depthwise)
    x = floats(3, 1, 4, 6, 6)
    (before,) = run(found, x=x)
    assert run_passes(found, (Equalize(),))[0].changed == 1
    np.testing.assert_array_equal(before, run(found, x=x)[0])
    grouped = {"w": floats(0, 4, 4, 1, 1), "v": floats(1, 4, 2, 3, 3)}
    assert find_scalable(model("a = Conv(x, w) y = Conv<group=2>(a, v)", grouped))[0] == ()


def linear(seed=0, norm_reader=""):
    weights = {
        "s": np.exp(floats(seed, 6, spread=0.1)) * 3,
        "t": floats(seed + 1, 6),
        "w": floats(seed + 2, 6, 4),
        "v": floats(seed + 3, 6, 3),
    }
    body = "n = LayerNormalization(x, s, t) p = MatMul(n, w) q = MatMul(n, v)"
    body += " y = Concat<axis=2>(p, q)" + norm_reader
    return model(
        body,
        weights,
        "float[N, L, 6] x",
        "float[N, L, M] y" + (", float[N, L, 6] z" if norm_reader else ""),
    )


def test_smoothing_folds_into_a_normalisation_that_layers_alone_read():
    found = linear()
    (each,) = find_smoothable(found)
    assert (each.tensor, len(each.layers), each.folds) == ("n", 2, True)
    x = floats(5, 2, 3, 6)
    (before,) = run(found, x=x)
    (stats,) = run_passes(found, (Smooth((Smoothing("n", (3, -2, 0, 1, 5, -1)),)),))
    assert dict(stats.counts) == {"folded": 1}
    assert stats.nodes_before == stats.nodes_after
    np.testing.assert_array_equal(before, run(found, x=x)[0])


def test_smoothing_adds_one_node_where_others_read_the_tensor_too():
    found = linear(norm_reader=" z = Neg(n)")
    (each,) = find_smoothable(found)
    assert not each.folds
    x = floats(5, 2, 3, 6)
    before = run(found, x=x)
    (stats,) = run_passes(found, (Smooth((Smoothing("n", (3, -2, 0, 1, 5, -1)),)),))
    assert dict(stats.counts) == {"inserted": 1}
    assert stats.nodes_after == stats.nodes_before + 1
    for old, new in zip(before, run(found, x=x), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("smoothing", "reason"),
    [
        (Smoothing("missing", (0,) * 6), "no linear layer reads"),
        (Smoothing("n", (0,) * 5), "6 channels, not 5"),
    ],
)
def test_what_cannot_be_smoothed_is_refused(smoothing, reason):
    assert reason in (Smooth((smoothing,)).requires(linear()) or "")


def test_strength_one_makes_all_channels_of_the_input_nearly_equal():
    largest = np.array([0.1, 1.0, 7.0, 100.0])
    powers = smoothing_powers(largest, [np.ones((4, 2))], 1.0)
    left = largest / 2.0**powers
    assert left.max() / left.min() <= 2.0


def test_channels_that_are_zero_are_left_alone():
    powers = smoothing_powers(np.array([0.0, 1.0, 64.0]), [np.ones((3, 2))], 0.5)
    assert powers[0] == 0
    assert np.isfinite(powers).all()
