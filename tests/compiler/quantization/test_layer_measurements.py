"""Statistics and errors of layers, against the same computed from the whole data at once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from leptonc.compiler.quantization.layer_noise import EXACT, RoundedLayer, layer_errors
from leptonc.compiler.quantization.layer_statistics import statistics_in_groups
from leptonc.compiler.quantization.smoothing import choose_smoothing
from leptonc.passes.quantize.layer_matrix import layer_matrix
from leptonc.passes.quantize.methods import DYNAMIC
from leptonc.passes.quantize.scales import Scale
from leptonc.passes.rescale.smooth import find_smoothable
from leptonc.runtime.errors import InputError

CHANCE = np.random.default_rng(0)
WEIGHT = CHANCE.standard_normal((6, 4)).astype(np.float32)
KERNEL = CHANCE.standard_normal((5, 2, 3, 3)).astype(np.float32)


def model(body, signature, weights):
    declared = ", ".join(
        f"float[{', '.join(map(str, array.shape))}] {name}" for name, array in weights.items()
    )
    inputs, outputs = signature
    found = ir.from_onnx_text(
        f"""<ir_version: 9, opset_import: ["" : 20]>
        g ({inputs}, {declared}) => ({outputs}) {{ {body} }}"""
    )
    for value in list(found.graph.inputs):
        if value.name in weights:
            found.graph.inputs.remove(value)
            value.const_value = ir.Tensor(weights[value.name], name=value.name)
            found.graph.register_initializer(value)
    for index, node in enumerate(found.graph):
        node.name = f"{node.op_type}_{index}"
    return found


def linear():
    return model("h = Tanh(x) y = MatMul(h, w)", ("float[N, 6] x", "float[N, 4] y"), {"w": WEIGHT})


def convolution():
    return model(
        "h = Tanh(x) y = Conv<pads=[1,0,1,2], strides=[2,1]>(h, k)",
        ("float[N, 2, 7, 8] x", "float[N, 5, P, Q] y"),
        {"k": KERNEL},
    )


def layers_of(found):
    return [layer for node in found.graph if (layer := layer_matrix(node)) is not None]


def test_sums_are_those_of_all_rows_but_the_held_out_samples():
    found = linear()
    sizes = (3, 1, 5, 4, 2, 3)
    samples = [{"x": CHANCE.standard_normal((rows, 6)).astype(np.float32)} for rows in sizes]
    ((_, seen),) = statistics_in_groups(
        found, layers_of(found), lambda: iter(samples), 6, hessians=True
    )
    held_out = np.tanh(samples.pop(3)["x"])
    rows = np.tanh(np.concatenate([sample["x"] for sample in samples]))
    assert seen.rows == 14
    np.testing.assert_allclose(seen.kept, held_out, rtol=1e-5, atol=1e-6)
    both = np.abs(np.concatenate([rows, held_out])).max(axis=0)
    np.testing.assert_allclose(seen.largest_of_all, both, rtol=1e-5)
    np.testing.assert_allclose(seen.hessian, rows.T @ rows, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(seen.energy, np.diag(rows.T @ rows), rtol=1e-5)
    np.testing.assert_allclose(seen.mean, rows.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen.largest, np.abs(rows).max(axis=0), rtol=1e-6)


def test_patches_times_the_matrix_are_the_convolution():
    found = convolution()
    x = CHANCE.standard_normal((2, 2, 7, 8)).astype(np.float32)
    (layer,) = layers_of(found)
    from leptonc.compiler.running.graph_runner import GraphRunner

    answer = GraphRunner(found, extra_outputs=["h"], optimised=True)({"x": x})
    rows = layer.inputs(answer["h"]) @ layer.weight()
    expected = np.moveaxis(answer["y"], 1, -1).reshape(-1, 5)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer.stored(layer.weight()), KERNEL)
    assert layer.inputs(answer["h"], 7).shape == (7, 18)


@pytest.mark.parametrize(("rows", "summed", "kept"), [(8, 6, 2), (3, 3, 3)])
def test_of_few_samples_rows_are_held_out_where_there_are_enough(rows, summed, kept):
    found = linear()
    sample = {"x": CHANCE.standard_normal((rows, 6)).astype(np.float32)}
    ((_, seen),) = statistics_in_groups(found, layers_of(found), lambda: iter([sample]), 1)
    assert (seen.rows, len(seen.kept)) == (summed, kept)


def test_no_samples_are_an_error_that_names_the_layer():
    found = linear()
    with pytest.raises(InputError, match="MatMul_1"):
        list(statistics_in_groups(found, layers_of(found), lambda: iter(()), 0))


@pytest.mark.parametrize("activation", [EXACT, DYNAMIC, Scale(np.float32(0.01), 128, signed=False)])
def test_the_error_of_a_layer_is_that_of_its_rounded_form(activation):
    found = linear()
    rounded = np.round(WEIGHT, 1)
    samples = [{"x": CHANCE.standard_normal((7, 6)).astype(np.float32)} for _ in range(3)]
    errors = layer_errors(
        found, [RoundedLayer("MatMul_1", rounded, activation)], lambda: iter(samples)
    )
    signal = noise = 0.0
    for sample in samples:
        h = np.tanh(sample["x"])
        taken = h
        if activation == DYNAMIC:
            scale = (max(h.max(), 0) - min(h.min(), 0)) / 255
            zero = np.rint(-min(h.min(), 0) / scale)
            taken = (np.clip(np.rint(h / scale) + zero, 0, 255) - zero) * scale
        elif activation != EXACT:
            taken = (np.clip(np.rint(h / 0.01) + 128, 0, 255) - 128) * 0.01
        signal += float(np.sum((h @ WEIGHT) ** 2))
        noise += float(np.sum((h @ WEIGHT - taken @ rounded) ** 2))
    assert errors["MatMul_1"].signal == pytest.approx(signal, rel=1e-4)
    assert errors["MatMul_1"].noise == pytest.approx(noise, rel=0.02)


def test_an_exact_layer_has_no_error():
    found = convolution()
    samples = [{"x": CHANCE.standard_normal((1, 2, 7, 8)).astype(np.float32)}]
    errors = layer_errors(found, [RoundedLayer("Conv_1", KERNEL)], lambda: iter(samples))
    assert errors["Conv_1"].sqnr_db is None
    assert errors["Conv_1"].signal > 0


def outliers(body="h = Tanh(x) m = Mul(h, s) y = MatMul(m, w) z = Neg(m)"):
    sizes = np.array([1, 1, 1, 1, 1, 400], np.float32)
    return model(
        body,
        ("float[N, 6] x", "float[N, 4] y, float[N, 6] z"),
        {"s": sizes, "w": WEIGHT / sizes[:, None]},
    )


def test_a_channel_of_outliers_is_smoothed_and_the_noise_falls():
    found = outliers()
    samples = [{"x": CHANCE.standard_normal((16, 6)).astype(np.float32)} for _ in range(4)]
    (each,) = find_smoothable(found)
    ((_, seen),) = statistics_in_groups(found, list(each.layers), lambda: iter(samples), 4)
    made = choose_smoothing(each, seen)
    assert made is not None
    smoothing, left = made
    assert smoothing.powers[5] - np.median(smoothing.powers) >= 4
    assert left < 0.1


def test_an_even_input_is_not_worth_a_node():
    found = model(
        "h = Tanh(x) y = MatMul(h, w) z = Neg(h)",
        ("float[N, 6] x", "float[N, 4] y, float[N, 6] z"),
        {"w": WEIGHT},
    )
    samples = [{"x": CHANCE.standard_normal((16, 6)).astype(np.float32)} for _ in range(4)]
    (each,) = find_smoothable(found)
    ((_, seen),) = statistics_in_groups(found, list(each.layers), lambda: iter(samples), 4)
    assert choose_smoothing(each, seen) is None
