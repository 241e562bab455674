"""Which tensors a calibration run looks at, on graphs written as ONNX text."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.graph.fingerprint import fingerprint
from leptonc.passes.ranges.observed import observed_tensors, with_rearranged
from leptonc.passes.ranges.table import Ranges
from leptonc.passes.ranges.tensor_range import observe


def with_weights(model, **shapes):
    for name, shape in shapes.items():
        value = ir.Value(name=name, const_value=ir.Tensor(np.ones(shape, np.float32), name=name))
        old = next(v for v in model.graph.inputs if v.name == name)
        old.replace_all_uses_with(value)
        model.graph.inputs.remove(old)
        model.graph.register_initializer(value)
    return model


def looked_at(model):
    tensors, aliases = observed_tensors(model, infer_facts(model))
    return {each.name: each.channel_axis for each in tensors}, aliases


def graph(parse, inputs, outputs, body, **shapes):
    weights = "".join(
        f", float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items()
    )
    return with_weights(parse(f"g ({inputs}{weights}) => ({outputs}) {{ {body} }}"), **shapes)


def test_a_convolution_is_looked_at_before_and_after_its_activation(parse):
    model = graph(
        parse,
        "float[n,4,8,8] x",
        "float[n,8,8,8] y",
        "a = Conv<pads=[1,1,1,1]>(x, w) b = BatchNormalization(a, s, s, s, s) c = Relu(b) y = Sigmoid(c)",
        w=(8, 4, 3, 3),
        s=(8,),
    )
    assert looked_at(model) == ({"x": 1, "c": None}, {})


def test_a_linear_layer_is_looked_at_before_it(parse):
    model = graph(
        parse,
        "float[n,6] x",
        "float[n,3] y",
        "h = MatMul(x, w) b = Add(h, v) g = Gelu(b) y = Gemm(g, u, v3)",
        w=(6, 5),
        v=(5,),
        u=(5, 3),
        v3=(3,),
    )
    assert looked_at(model) == ({"x": -1, "g": -1}, {})


def test_attention_is_looked_at_but_not_its_mask(parse):
    model = parse(
        """g (float[b,h,s,d] q, float[b,h,d,s] k, float[b,1,s,s] mask, float[b,h,s,d] v)
             => (float[b,h,s,d] y) {
          r = MatMul(q, k)
          m = Add(r, mask)
          p = Softmax(m)
          y = MatMul(p, v)
        }"""
    )
    assert looked_at(model) == ({"q": None, "k": None, "v": None, "p": None}, {})


def test_ways_that_integers_can_take_are_followed(parse):
    model = graph(
        parse,
        "float[n,4,8,8] x",
        "float[n,3] y",
        """a = Conv<pads=[1,1,1,1]>(x, w)
           r = Relu(a)
           b = Conv<pads=[1,1,1,1]>(r, w)
           s = Add(b, x)
           t = Relu(s)
           p = GlobalAveragePool(t)
           f = Flatten(p)
           y = Gemm(f, u)""",
        w=(4, 4, 3, 3),
        u=(4, 3),
    )
    found, aliases = looked_at(model)
    assert found == {"x": 1, "r": 1, "b": None, "s": None, "t": None, "f": -1}
    assert aliases == {"p": "f"}


def test_rearranged_tensors_share_what_was_observed(parse):
    model = parse(
        """g (float[b,s,8] q, float[b,s,8] k) => (float[b,s,s] y) {
          t = Transpose<perm=[0,2,1]>(k)
          y = MatMul(q, t)
        }"""
    )
    assert looked_at(model) == ({"q": None, "k": None}, {"t": "k"})


@pytest.mark.parametrize(
    "body",
    [
        "y = Tanh(x)",
        "a = Exp(x) y = Add(a, x)",
        "a = Cast<to=7>(x) b = Add(a, a) y = Cast<to=1>(b)",
    ],
)
def test_a_graph_without_products_needs_nothing(parse, body):
    assert looked_at(parse(f"g (float[n] x) => (float[n] y) {{ {body} }}")) == ({}, {})


def test_only_floats_are_looked_at(parse):
    model = parse("g (int32[n,4] x, int32[4,3] w) => (int32[n,3] y) { y = MatMul(x, w) }")
    assert looked_at(model) == ({}, {})


def test_an_operator_of_another_domain_is_left_alone(parse):
    model = parse("g (float[n,4] x, float[4,3] w) => (float[n,3] y) { y = test.MatMul(x, w) }")
    assert looked_at(model) == ({}, {})


def test_what_fusion_rearranged_has_the_range_of_what_it_was(parse):
    canonical = graph(
        parse, "float[2,3,6] x", "float[2,3,4] y", "h = Exp(x) y = MatMul(h, w)", w=(6, 4)
    )
    tensors, aliases = observed_tensors(canonical, infer_facts(canonical))
    seen = {each.name: observe(np.full((2, 3, 6), 2.5, np.float32)) for each in tensors}
    ranges = Ranges(fingerprint(canonical), 1, 0, seen, aliases)
    fused = graph(
        parse,
        "float[2,3,6] x, int64[2] rows, int64[3] back",
        "float[2,3,4] y",
        "h = Exp(x) r = Reshape(h, rows) g = Gemm(r, w) e = Exp(g) f = Gemm(e, v) y = Reshape(f, back)",
        w=(6, 4),
        v=(4, 4),
    )
    assert "r" not in ranges
    found = with_rearranged(ranges, fused)
    assert found.range("r") == found.range("h")
    # Exp changes elements: nothing is known of what it gives.
    assert "e" not in found
