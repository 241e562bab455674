"""What is measured is what is carried out: each rounding has the bits of ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leptonc.compiler.quantization.smoothing import round_activations
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.passes.quantize.scales import (
    SMALLEST_SCALE,
    column_scales,
    nearest,
    round_nearest,
    scale_for,
    symmetric_scale,
)

LARGEST = float(np.finfo(np.float32).max)
# Denormal, tiny, ordinary and huge; 0 makes a range one-sided or of zero width.
ends = st.one_of(
    st.just(0.0),
    st.floats(0.0, 2.0**-100, width=32),
    st.floats(0.0, 1e4, width=32),
    st.floats(0.0, LARGEST, width=32),
)


def graph(body: str, **constants: ir.TensorProtocol) -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["" : 21]> net (float[n] x) => ({body} }}'
    model = ir.from_onnx_text(text)
    for name, tensor in constants.items():
        tensor.name = name
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        for node in model.graph:
            for index, used in enumerate(node.inputs):
                if used is not None and used.name == name:
                    node.replace_input_with(index, value)
        model.graph.register_initializer(value)
    return model


def carried_out(x: np.ndarray, low: float, high: float, symmetric: bool) -> np.ndarray:
    """Return DQ(Q(x)) as ONNX Runtime computes it."""
    step, zero = scale_for(low, high, symmetric=symmetric).parts()
    found = graph(
        "float[n] y) { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)",
        s=ir.Tensor(step),
        z=ir.Tensor(zero),
    )
    return GraphRunner(found)({"x": x})["y"]


@settings(deadline=None, max_examples=150)
@given(ends, ends, st.booleans(), st.integers(0, 9))
@example(1e-37, 2e-36, False, 0)
@example(0.0, 0.0, False, 0)
@example(LARGEST, LARGEST, True, 0)
@example(LARGEST, 0.0, False, 0)
@example(0.0, 255 * SMALLEST_SCALE, False, 0)
def test_activations_are_rounded_as_the_graph_rounds_them(
    below: float, above: float, symmetric: bool, seed: int
) -> None:
    low, high = -below, above
    chance = np.random.default_rng(seed)
    inside = low + (high - low) * chance.random(64)
    scale = scale_for(low, high, symmetric=symmetric)
    # Halves of a step, where rounding is to even, the ends, and what lies beyond them.
    halves = (np.arange(-130, 260, 7) + 0.5) * float(scale.step)
    x = np.concatenate([inside, halves, [low, high, 0.0, 2 * low, 2 * high]])
    x = np.clip(x, -LARGEST, LARGEST).astype(np.float32)
    made = scale.rounded(x)
    np.testing.assert_array_equal(made, carried_out(x, low, high, symmetric))
    assert scale.rounded(np.zeros(1, np.float32))[0] == 0.0


@settings(deadline=None, max_examples=100)
@given(ends, ends, st.booleans())
def test_every_scale_has_an_inverse_and_covers_its_range(
    below: float, above: float, symmetric: bool
) -> None:
    # The end of a range that ends where float32 does may round to infinity.
    bounds = np.minimum([below, above], 1e38).astype(np.float32) * np.float32([-1, 1])
    scale = scale_for(float(bounds[0]), float(bounds[1]), symmetric=symmetric)
    assert scale.step >= SMALLEST_SCALE
    assert 0 < np.float32(1) / scale.step < np.inf
    off = np.abs(scale.rounded(bounds).astype(np.float64) - bounds)
    # The zero point is rounded as well, so an end may be off by a whole step.
    assert (off <= float(scale.step) * 1.0001).all()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 1000),
    st.sampled_from([1e-44, 1e-38, 1e-36, 1e-3, 1.0, 1e30]),
    st.sampled_from([(8, 0), (8, 16), (4, 16)]),
)
def test_weights_are_rounded_as_the_graph_holds_them(
    seed: int, magnitude: float, form: tuple[int, int]
) -> None:
    bits, block = form
    weight = np.random.default_rng(seed).standard_normal((32, 5)) * magnitude
    weight = weight.astype(np.float32)
    weight[:, 1] = 0.0
    made = round_nearest(
        weight, column_scales(weight, bits=bits, block=block), bits=bits, block=block
    )
    assert (made.scale >= SMALLEST_SCALE).all()
    dtype = ir.DataType.INT4 if bits == 4 else ir.DataType.INT8
    integers = ir.Tensor(made.values.astype(dtype.numpy()), dtype=dtype)
    place = f"axis = 0, block_size = {block}" if block else "axis = 1"
    found = graph(
        f"float[32, 5] y) {{ y = DequantizeLinear <{place}> (w, s)",
        w=integers,
        s=ir.Tensor(made.scale if block else made.scale[0]),
    )
    answer = GraphRunner(found)({"x": np.zeros(1, np.float32)})["y"]
    np.testing.assert_array_equal(made.dequantized(), answer)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1000), ends, st.floats(-3, 3))
def test_ranges_of_a_call_are_those_that_the_engine_finds(
    seed: int, magnitude: float, shift: float
) -> None:
    x = (np.random.default_rng(seed).standard_normal(100) + shift) * min(magnitude, 1e37)
    x = x.astype(np.float32)
    if 0.0 < np.ptp(np.append(x, 0.0)) < 256 * SMALLEST_SCALE:
        x[0] = 1.0
    body = "float[n] y) { q, s, z = DynamicQuantizeLinear (x) y = DequantizeLinear (q, s, z)"
    answer = GraphRunner(graph(body))({"x": x})["y"]
    step = (max(x.max(), 0.0) - min(x.min(), 0.0)) / np.float32(255)
    # The engine finds the zero point in float32, which may make the other of two neighbours of it.
    assert np.abs(round_activations(x) - answer).max() <= step * 1.0001


@pytest.mark.parametrize("bits", [8, 4])
def test_the_largest_weight_has_the_largest_level(bits: int) -> None:
    limit = 2 ** (bits - 1) - 1
    scale = symmetric_scale(np.array([limit * 0.5, 0.0, 1e-40]), bits)
    assert scale.tolist() == [0.5, 1.0, 1.0]
    assert nearest(np.array([limit * 0.5, -1.0, 3.0]), scale, bits).tolist() == [limit, -1, 3]
