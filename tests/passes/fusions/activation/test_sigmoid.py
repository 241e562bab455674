"""SiLU and the sigmoid form of GELU, HardSwish and Mish, written out, become one node."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, alone, check_kept, surround, times_each_fires

from leptonc.passes.fusions.activation.fuse import FUSE_ACTIVATION
from leptonc.passes.pipeline import Context
from leptonc.passes.rewriting.rewriter import apply_rules

SILU = "t = Sigmoid(x)  y = Mul(x, t)"
MISH = "s = Softplus(x)  t = Tanh(s)  y = Mul(x, t)"
WHERE = "s = Softplus(x)  g = Greater(x, ten)  w = Where(g, x, s)  t = Tanh(w)  y = Mul(x, t)"
CLIP = "a = Add(x, three)  c = Clip(a, zero, six)  p = Mul(x, c)  y = Div(p, six)"
QUICK = "a = Mul(x, alpha)  t = Sigmoid(a)  y = Mul(t, x)"
WEIGHTS = """<float alpha = {1.75}, float zero = {0}, float three = {3}, float six = {6},
    float one = {1}, float half = {0.5}, float sixth = {0.16666667}, float ten = {20}>"""


def graph(body, *, x="float[N,3]", more="", opset=20, weights=WEIGHTS):
    head = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
    return f"{head} g ({x} x) => ({x} y{more})\n{weights} {{ {body} }}"


def reasons(stats):
    return [refusal.reason for refusal in stats.refused]


@pytest.mark.parametrize(
    ("body", "target", "expected", "opset"),
    [
        (SILU, "generic", "y = Swish<alpha: float = 1.0>(x)", 24),
        (QUICK, "generic", "y = Swish<alpha: float = 1.75>(x)", 24),
        (SILU, "ort-cpu", "y = com.microsoft.QuickGelu<alpha: float = 1.0>(x)", 20),
        (QUICK, "ort-cuda", "y = com.microsoft.QuickGelu<alpha: float = 1.75>(x)", 20),
        (SILU, "primitive", SILU, 20),
    ],
)
def test_sigmoid_forms(parse, assert_graph, body, target, expected, opset):
    model = parse(graph(body))
    FUSE_ACTIVATION.run(model, Context(target))
    assert_graph(
        model, graph(expected, opset=opset, weights=WEIGHTS if target == "primitive" else "")
    )
    assert model.opset_imports[""] == opset


def test_the_gate_of_a_gated_layer(parse):
    model = parse(graph("t = Sigmoid(x)  s = Mul(x, t)  u = Neg(x)  y = Mul(s, u)"))
    FUSE_ACTIVATION.run(model, Context("ort-cpu"))
    assert [node.op_type for node in model.graph] == ["QuickGelu", "Neg", "Mul"]


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three)  c = Clip(a, zero, six)  p = Mul(x, c)  y = Div(p, six)",
        "a = Add(three, x)  c = Clip(a, zero, six)  d = Div(c, six)  y = Mul(x, d)",
        "a = Add(x, three)  c = Clip(a, zero, six)  d = Mul(c, sixth)  y = Mul(d, x)",
        "b = Mul(x, sixth)  a = Add(b, half)  c = Clip(a, zero, one)  y = Mul(c, x)",
        "h = HardSigmoid<alpha: float = 0.16666667, beta: float = 0.5>(x)  y = Mul(h, x)",
    ],
)
def test_hard_swish(parse, assert_graph, body):
    model = parse(graph(body))
    assert FUSE_ACTIVATION.run(model).counts == (("hard-swish", 1),)
    assert_graph(model, graph("y = HardSwish(x)", weights=""))


@pytest.mark.parametrize(
    "body",
    [
        MISH,
        "s = Softplus(x)  t = Tanh(s)  y = Mul(t, x)",
        WHERE,
    ],
)
def test_mish(parse, assert_graph, body):
    model = parse(graph(body))
    assert FUSE_ACTIVATION.run(model).counts == (("mish", 1),)
    assert_graph(model, graph("y = Mish(x)", weights=""))
    primitive = parse(graph(body))
    assert not FUSE_ACTIVATION.run(primitive, Context("primitive")).changed


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (graph(SILU, more=", float[N,3] t"), "'t' is an output of the graph"),
        (
            graph(SILU + "  [other] z = Neg(t)", more=", float[N,3] z"),
            "'t' is also read by 'other' (Neg)",
        ),
        (graph(SILU, x="double[N,3]"), "'x' is DOUBLE"),
        (graph(MISH, more=", float[N,3] s"), "'s' is an output of the graph"),
        (graph(MISH, x="double[N,3]"), "'x' is DOUBLE"),
        (graph(CLIP, more=", float[N,3] c"), "'c' is an output of the graph"),
        (
            graph(CLIP, x="double[N,3]", weights=WEIGHTS.replace("float ", "double ")),
            "'x' is DOUBLE",
        ),
    ],
)
def test_a_precondition_that_does_not_hold(parse, text, reason, target):
    stats = FUSE_ACTIVATION.run(parse(text), Context(target))
    assert not stats.changed
    assert reasons(stats) == [reason]


BRAIN = "<bfloat16 three = {16448}, bfloat16 six = {16576}, bfloat16 zero = {0}>"


@pytest.mark.parametrize("opset", [20, 22])
def test_bfloat16_is_rewritten_where_the_operator_takes_it(parse, opset):
    text = graph(CLIP, x="bfloat16[N,3]", weights=BRAIN, opset=opset)
    stats = FUSE_ACTIVATION.run(parse(text))
    assert stats.changed == (opset == 22)
    assert reasons(stats) == (
        [] if stats.changed else ["HardSwish takes bfloat16 from opset 22 on"]
    )


def test_an_engine_without_the_kernel_keeps_bfloat16(parse):
    """ONNX Runtime's QuickGelu takes float32 and float16."""
    text = graph(SILU, x="bfloat16[N,3]", weights="")
    assert reasons(FUSE_ACTIVATION.run(parse(text), Context("ort-cuda"))) == ["'x' is BFLOAT16"]
    assert FUSE_ACTIVATION.run(parse(text)).counts == (("swish", 1),)


@pytest.mark.parametrize(
    "text",
    [
        graph("t = Sigmoid(x)  n = Neg(x)  y = Mul(n, t)"),
        graph("a = Add(x, one)  t = Sigmoid(a)  y = Mul(x, t)"),
        graph("t = Sigmoid(x)  y = Mul(t, t)"),
        graph("a = Add(x, three)  c = Clip(a, one, six)  p = Mul(x, c)  y = Div(p, six)"),
        graph("a = Add(x, three)  c = Clip(a, zero, ten)  p = Mul(x, c)  y = Div(p, six)"),
        graph("a = Add(x, three)  c = Clip(a, zero)  p = Mul(x, c)  y = Div(p, six)"),
        graph("a = Add(x, one)  c = Clip(a, zero, six)  p = Mul(x, c)  y = Div(p, six)"),
        graph("a = Add(x, three)  c = Clip(a, zero, six)  y = Mul(x, c)"),
        graph("h = HardSigmoid(x)  y = Mul(h, x)"),
        graph("s = Softplus(x)  t = Tanh(s)  n = Neg(x)  y = Mul(n, t)"),
        graph("a = Mul(x, x)  b = Add(a, x)  t = Sigmoid(b)  y = Mul(x, t)"),
        graph("t = Sigmoid(x)  p = Mul(t, t)  y = Mul(x, p)"),
        graph(CLIP.replace("a = Add(x, three)", "q = Mul(x, x)  b = Add(q, x)  a = Add(b, three)")),
        graph(CLIP.replace("Clip(a, zero, six)", "Clip(a, zero, m)")).replace(
            "float[N,3] x)", "float[N,3] x, float m)"
        ),
        graph(CLIP.replace("Clip(a, zero, six)", "Clip(a, m, six)")).replace(
            "float[N,3] x)", "float[N,3] x, float m)"
        ),
        graph(
            "q = Mul(x, x)  b = Add(q, x)"
            "  h = HardSigmoid<alpha: float = 0.16666667, beta: float = 0.5>(b)  y = Mul(h, x)"
        ),
        graph("t = Tanh(x)  y = Mul(x, t)"),
        graph("n = Neg(x)  s = Softplus(n)  t = Tanh(s)  y = Mul(x, t)"),
        graph(WHERE.replace("Greater(x, ten)", "Greater(x, one)")),
        graph(WHERE.replace("Greater(x, ten)", "Greater(ten, x)")),
        graph(WHERE.replace("Greater(x, ten)", "Less(x, ten)")),
        graph("n = Neg(x)  " + WHERE.replace("Greater(x, ten)", "Greater(n, ten)")),
        graph("n = Neg(x)  " + WHERE.replace("Where(g, x, s)", "Where(g, n, s)")),
        graph("n = Neg(x)  " + WHERE.replace("Where(g, x, s)", "Where(g, x, n)")),
        graph("n = Neg(x)  " + WHERE.replace("Softplus(x)", "Softplus(n)")),
        graph(WHERE.replace("Greater(x, ten)", "Greater(x, m)")).replace(
            "float[N,3] x)", "float[N,3] x, float m)"
        ),
    ],
)
def test_what_only_looks_like_it(parse, text):
    for target in ("generic", "ort-cpu"):
        stats = FUSE_ACTIVATION.run(parse(text), Context(target))
        assert not stats.changed
        assert not stats.refused


def draw_activation(draw):
    pattern, random = Pattern(), np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float32, np.float32, np.float16]))
    shape = tuple(draw(st.integers(1, 4)) for _ in range(draw(st.integers(0, 3))))
    x = pattern.input(np.asarray(3 * random.normal(size=shape), dtype))

    def number(value):
        dims = draw(st.sampled_from([(), (1,) * len(shape)]))
        return pattern.weight(np.full(dims, value, dtype))

    kind = draw(st.sampled_from(["silu", "quick", "hard", "clip", "mish"]))
    if kind == "silu":
        gate = pattern.add("Sigmoid", x)
    elif kind == "quick":
        scaled = pattern.add("Mul", *draw(st.permutations([x, number(1.702)])))
        gate = pattern.add("Sigmoid", scaled)
    elif kind == "hard":
        gate = pattern.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    elif kind == "clip":
        raised = pattern.add("Add", *draw(st.permutations([x, number(3)])))
        bounds = [pattern.weight(np.array(bound, dtype)) for bound in (0, 6)]
        gate = pattern.add("Div", pattern.add("Clip", raised, *bounds), number(6))
    else:
        gate = pattern.add("Tanh", pattern.add("Softplus", x))
    pattern.add("Mul", *draw(st.permutations([x, gate])))
    return pattern


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_outputs_stay_in_any_surrounding(data):
    target = data.draw(st.sampled_from(["generic", "ort-cpu", "primitive"]))

    def rewrite(model):
        apply_rules(model, "activation", FUSE_ACTIVATION.rules, target=target)
        assert not apply_rules(model, "activation", FUSE_ACTIVATION.rules, target=target).changed

    check_kept(surround(data.draw, draw_activation(data.draw)), rewrite)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_it_fires_where_nothing_is_in_the_way(data):
    model = alone(draw_activation(data.draw))
    assert apply_rules(model, "activation", FUSE_ACTIVATION.rules).changed == 1
    assert len(model.graph) == 1


@pytest.mark.parametrize(("target", "silu"), [("generic", "swish"), ("ort-cpu", "quick-gelu")])
def test_each_rule_fires_on_what_is_drawn(target, silu):
    fired = times_each_fires(draw_activation, FUSE_ACTIVATION.rules, target=target)
    assert min(fired[name] for name in (silu, "hard-swish", "mish")) >= 1
