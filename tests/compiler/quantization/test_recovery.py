"""Equalised and smoothed graphs: the same bits in float, less noise in integers, true ranges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from leptonc.compiler.calibration.held_samples import CalibrationSamples
from leptonc.compiler.console.progress import Steps
from leptonc.compiler.quantization.float_graph import FloatGraph
from leptonc.compiler.quantization.layer_noise import plan_errors
from leptonc.compiler.quantization.recovery import observed_again, recovered
from leptonc.compiler.quantization.weight_rounding import round_weights
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.passes.graph.fingerprint import fingerprint
from leptonc.passes.quantize.default_plan import Quantization, default_plan
from leptonc.passes.quantize.quantize import apply_plan
from leptonc.passes.ranges.observed import Observed
from leptonc.passes.ranges.table import Ranges
from leptonc.passes.ranges.totals import RangeTotals

CHANCE = np.random.default_rng(7)
WIDTH = 32


def graph_of(text, **weights):
    model = ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : 20]> {text}')
    for name, array in weights.items():
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape(array.shape),
            const_value=ir.Tensor(array.astype(np.float32), name=name),
        )
        model.graph.register_initializer(value)
        for node in model.graph:
            for index, each in enumerate(node.inputs):
                if each is not None and each.name == name and each is not value:
                    node.replace_input_with(index, value)
    for index, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{index}"
    return model


def normalised(outlier=200.0):
    """A normalisation with one large channel, read by a linear layer and by the output."""
    gain = np.ones(WIDTH)
    gain[5] = outlier
    weight = CHANCE.standard_normal((WIDTH, 16))
    weight[5] /= outlier
    return graph_of(
        f"""g (float[N, {WIDTH}] x) => (float[N, 16] y, float[N, {WIDTH}] z) {{
            h = LayerNormalization <axis = -1> (x, gain, shift)
            y = MatMul (h, w)
            z = Neg (h)
        }}""",
        gain=gain,
        shift=np.zeros(WIDTH),
        w=weight,
    )


def convolutions(spread):
    """Two convolutions whose channels in between differ by `spread`."""
    sizes = spread ** np.linspace(-1, 1, 8)
    first = CHANCE.standard_normal((8, 3, 3, 3)) * sizes[:, None, None, None]
    second = CHANCE.standard_normal((4, 8, 3, 3)) / sizes[None, :, None, None]
    return graph_of(
        """g (float[N, 3, 8, 8] x) => (float[N, 4, 4, 4] y) {
            c = Conv (x, k)
            r = Relu (c)
            y = Conv (r, l)
        }""",
        k=first,
        l=second,
    )


def samples_for(model, shape):
    made = tuple({"x": CHANCE.standard_normal(shape).astype(np.float32)} for _ in range(8))
    return CalibrationSamples(made, tuple(bytes([index] * 32) for index in range(8)))


def ranges_of(model, samples) -> Ranges:
    inner = [str(value.name) for node in model.graph for value in node.outputs]
    outputs = {str(value.name) for value in model.graph.outputs}
    runner = GraphRunner(
        model, extra_outputs=[name for name in inner if name not in outputs], optimised=True
    )
    totals = RangeTotals(
        fingerprint(model), [Observed(name, None, None) for name in ["x", *inner]], {}
    )
    for each, digest in zip(samples.inputs, samples.digests, strict=True):
        totals.add({**each, **runner(each)}, digest)
    return totals.ranges()


def floats_for(model, samples, method):
    ranges = ranges_of(model, samples)
    plan = default_plan(model, "ort-cpu", "int8", ranges, Quantization(method=method))
    return FloatGraph(model, ranges, plan, ())


def answers(model, samples):
    runner = GraphRunner(model, optimised=True)
    return [runner(each) for each in samples.inputs]


@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_a_channel_of_outliers_is_divided_and_the_float_graph_keeps_its_bits(method):
    model = normalised()
    samples = samples_for(model, (5, WIDTH))
    floats = floats_for(model, samples, method)
    before = answers(model, samples)
    noisy = plan_errors(model.clone(), floats.plan, floats.ranges, samples.each)
    made = recovered(floats, samples, Steps())
    assert [stats.name for stats in made.passes] == ["smooth"]
    for old, new in zip(before, answers(made.model, samples), strict=True):
        for name in old:
            np.testing.assert_array_equal(old[name], new[name])
    quiet = plan_errors(made.model, made.plan, made.ranges, samples.each)
    assert quiet["y"].relative < 0.2 * noisy["y"].relative


def test_the_ranges_are_those_of_the_graph_as_it_is_now():
    model = normalised()
    samples = samples_for(model, (5, WIDTH))
    made = recovered(floats_for(model, samples, "static"), samples, Steps())
    fresh = ranges_of(made.model, samples)
    read = str(next(node for node in made.model.graph if node.op_type == "MatMul").inputs[0].name)
    assert read != "h"
    assert made.ranges is not None
    assert made.ranges.range(read) == fresh.range(read)
    # What did not change was not observed again.
    assert made.ranges.range("h") == fresh.range("h")


def test_even_channels_stay_as_they_are():
    model = normalised(outlier=1.0)
    samples = samples_for(model, (5, WIDTH))
    floats = floats_for(model, samples, "static")
    made = recovered(floats, samples, Steps())
    assert made.passes == ()
    assert made.ranges is floats.ranges
    assert made.model is floats.model


@pytest.mark.parametrize(("spread", "fires"), [(30.0, True), (1.0, False)])
def test_weights_are_equalised_where_that_leaves_less_noise(spread, fires):
    model = convolutions(spread)
    samples = samples_for(model, (2, 3, 8, 8))
    floats = floats_for(model, samples, "static")
    before = answers(model, samples)
    made = recovered(floats, samples, Steps())
    assert [stats.name for stats in made.passes] == (["equalize"] if fires else [])
    for old, new in zip(before, answers(made.model, samples), strict=True):
        np.testing.assert_array_equal(old["y"], new["y"])
    assert made.ranges is not None
    fresh = ranges_of(made.model, samples)
    for name in ("c", "r"):
        assert made.ranges.range(name) == fresh.range(name)


def test_nothing_is_observed_again_where_nothing_changed():
    model = normalised()
    samples = samples_for(model, (5, WIDTH))
    ranges = ranges_of(model, samples)
    assert observed_again(model, ["x", "no such tensor"], ranges, samples) is ranges


def test_the_means_of_outputs_stay_with_a_corrected_bias():
    model = graph_of(
        """g (float[N, 3, 6, 6] x) => (float[N, 4, 4, 4] y) {
            p = Add (x, offset)
            y = Conv (p, k)
        }""",
        offset=np.full((1, 3, 1, 1), 6.0),
        k=CHANCE.standard_normal((4, 3, 3, 3)),
    )
    samples = samples_for(model, (4, 3, 6, 6))
    floats = floats_for(model, samples, "static")
    plan = round_weights(model, floats.plan, samples)
    (choice,) = plan.quantized
    assert choice.shift is not None
    assert choice.to_json()["bias"] == "corrected"
    exact = np.stack([each["y"] for each in answers(model, samples)])
    moved = {}
    for name, shift in (("corrected", choice.shift), ("as it was", None)):
        made = model.clone()
        apply_plan(
            made, plan.with_choices([replace(choice, shift=shift)]), floats.ranges, "ort-cpu"
        )
        found = np.stack([each["y"] for each in answers(made, samples)])
        moved[name] = np.abs((found - exact).mean(axis=(0, 1, 3, 4))).max()
    assert moved["corrected"] < 0.5 * moved["as it was"]
