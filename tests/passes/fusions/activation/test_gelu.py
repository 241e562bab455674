"""GELU, written out, becomes one Gelu."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, alone, check_kept, surround, times_each_fires

from leptonc.passes.fusions.activation.fuse import FUSE_ACTIVATION
from leptonc.passes.fusions.activation.gelu import GELU_OLD_OPSET
from leptonc.passes.pipeline import Context
from leptonc.passes.rewriting.rewriter import apply_rules

HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>\n'
WEIGHTS = """<float root = {1.4142135}, float over_root = {0.70710677}, float one = {1.0},
    float half = {0.5}, float two = {2.0}, float three = {3.0}, float cube = {0.044715},
    float slope = {0.7978846}>"""


def graph(body, *, x="float[N,3]", more="", weights=WEIGHTS, head=HEAD):
    return f"{head} g ({x} x) => ({x} y{more})\n{weights} {{ {body} }}"


def fused(approximate=""):
    attribute = '<approximate: string = "tanh">' if approximate else ""
    return f"{HEAD} g (float[N,3] x) => (float[N,3] y) {{ y = Gelu{attribute}(x) }}"


def reasons(stats, rule="gelu"):
    return [refusal.reason for refusal in stats.refused if refusal.rule == rule]


ERF = "a = Div(x, root)  t = Erf(a)  g = Add(t, one)  "


@pytest.mark.parametrize(
    "body",
    [
        ERF + "p = Mul(x, g)  y = Mul(p, half)",
        ERF + "p = Mul(x, g)  y = Mul(half, p)",
        ERF + "p = Mul(g, x)  y = Div(p, two)",
        ERF + "h = Mul(x, half)  y = Mul(h, g)",
        ERF + "h = Div(x, two)  y = Mul(g, h)",
        ERF + "h = Mul(half, g)  y = Mul(x, h)",
        "a = Mul(over_root, x)  t = Erf(a)  g = Add(one, t)  p = Mul(x, g)  y = Mul(p, half)",
        "a = Div(x, root)  t = Erf(a)  h = Mul(t, half)  g = Add(h, half)  y = Mul(g, x)",
        "a = Div(x, root)  t = Erf(a)  h = Mul(x, half)  p = Mul(h, t)  y = Add(h, p)",
        "a = Div(x, root)  t = Erf(a)  g = Sum(one, t)  p = Mul(x, g)  y = Mul(half, p)",
        "a = Div(x, root)  t = Erf(a)  n = Neg(t)  g = Sub(one, n)  p = Mul(x, g)  y = Mul(half, p)",
    ],
)
def test_every_association_of_the_erf_form(parse, assert_graph, body):
    model = parse(graph(body))
    assert FUSE_ACTIVATION.run(model).counts == (("gelu", 1),)
    assert_graph(model, fused())


TANH = "t = Tanh(a)  g = Add(t, one)  h = Mul(x, half)  y = Mul(h, g)"


@pytest.mark.parametrize(
    "body",
    [
        "q = Pow(x, three)  r = Mul(q, cube)  s = Add(x, r)  a = Mul(s, slope)",
        "q = Mul(x, x)  p = Mul(q, x)  r = Mul(cube, p)  s = Add(r, x)  a = Mul(slope, s)",
        "q = Pow(x, two)  r = Mul(q, cube)  s = Add(r, one)  p = Mul(x, slope)  a = Mul(p, s)",
        "q = Mul(cube, x)  r = Mul(q, x)  s = Add(one, r)  p = Mul(slope, x)  a = Mul(s, p)",
        "q = Mul(x, x)  r = Mul(q, cube)  s = Add(r, one)  p = Mul(s, x)  a = Mul(p, slope)",
    ],
)
def test_every_association_of_the_tanh_form(parse, assert_graph, body):
    model = parse(graph(body + "  " + TANH))
    assert FUSE_ACTIVATION.run(model).counts == (("gelu", 1),)
    assert_graph(model, fused("tanh"))


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_the_sigmoid_of_twice_the_argument(parse, assert_graph, target):
    body = "q = Pow(x, three)  r = Mul(q, cube)  s = Add(x, r)  a = Mul(s, slope)"
    body += "  b = Mul(a, two)  t = Sigmoid(b)  y = Mul(x, t)"
    model = parse(graph(body))
    assert FUSE_ACTIVATION.run(model, Context(target)).counts == (("gelu", 1),)
    assert_graph(model, fused("tanh"))
    once = parse(graph(body.replace("b = Mul(a, two)", "b = Identity(a)")))
    assert not FUSE_ACTIVATION.run(once, Context(target)).changed


DONE = ERF + "p = Mul(x, g)  y = Mul(p, half)"


def test_an_input_that_is_scaled_itself(parse):
    """x is a product with a constant, which is no part of the activation."""
    body = "z = Mul(x, half)  " + DONE.replace("x", "z")
    model = parse(graph(body))
    FUSE_ACTIVATION.run(model)
    assert [node.op_type for node in model.graph] == ["Mul", "Gelu"]


def test_a_number_leaves_any_rank_alone(parse):
    """Constants without axes do, also where the rank of x is not known."""
    model = parse(graph(DONE))
    model.graph.inputs[0].shape = None
    assert FUSE_ACTIVATION.run(model).counts == (("gelu", 1),)


def test_the_gate_of_a_gated_layer(parse):
    model = parse(graph(DONE.replace("y =", "n =") + "  y = Mul(n, x)"))
    FUSE_ACTIVATION.run(model)
    assert [node.op_type for node in model.graph] == ["Gelu", "Mul"]


def test_a_function_in_a_wider_type(parse, assert_graph):
    weights = """<float root = {1.4142135}, float16 one = {15360}, float16 half = {14336}>"""
    body = """w = Cast<to = 1>(x)  a = Div(w, root)  t = Erf(a)  n = Cast<to = 10>(t)
        g = Add(n, one)  p = Mul(x, g)  y = Mul(p, half)"""
    model = parse(graph(body, x="float16[N,3]", weights=weights))
    FUSE_ACTIVATION.run(model)
    assert_graph(model, f"{HEAD} g (float16[N,3] x) => (float16[N,3] y) {{ y = Gelu(x) }}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (graph(DONE, more=", float[N,3] g"), "'g' is an output of the graph"),
        (
            graph(DONE + " [other] z = Neg(t)", more=", float[N,3] z"),
            "'t' is also read by 'other' (Neg)",
        ),
        (
            graph(
                DONE,
                x="double[N,3]",
                weights=WEIGHTS.replace("float ", "double ").replace(
                    "1.4142135", "1.414213562373095"
                ),
            ),
            "'x' is DOUBLE",
        ),
        (
            graph(
                "w = Cast<to = 1>(x)  a = Div(x, root)  t = Erf(a)  n = Cast<to = 1>(t)"
                "  g = Add(n, one)  p = Mul(w, g)  y = Mul(p, half)",
                x="float16[N,3]",
                weights="<float16 root = {15784}, float one = {1}, float half = {0.5}>",
            ).replace("float16[N,3] y", "float[N,3] y"),
            "the result is not FLOAT16, as 'x' is",
        ),
    ],
)
def test_a_precondition_that_does_not_hold(parse, text, reason):
    stats = FUSE_ACTIVATION.run(parse(text))
    assert not stats.changed
    assert reasons(stats) == [reason]
    ours = FUSE_ACTIVATION.run(parse(text), Context("ort-cpu"))
    assert not ours.changed
    assert reasons(ours, "gelu") == reasons(ours, "gelu-ort") == [reason]


@pytest.mark.parametrize(
    "text",
    [
        graph(DONE, weights=WEIGHTS.replace("1.4142135", "1.4142")),
        graph(DONE, weights=WEIGHTS.replace("half = {0.5}", "half = {0.51}")),
        graph(DONE, weights=WEIGHTS.replace("one = {1.0}", "one = {1.1}")),
        graph(DONE.replace("Mul(x, g)", "Mul(a, g)")),
        graph(DONE.replace("Erf", "Sin")),
        graph(
            DONE, weights=WEIGHTS.replace("float half = {0.5}", "float[1,1,1] half = {0.5}")
        ).replace("float[N,3] y", "float[1,N,3] y"),
        graph(DONE, weights=WEIGHTS.replace("float half = {0.5}", "float[3] half = {0.5,0.5,0.5}")),
        graph(DONE, weights=WEIGHTS.replace("float half = {0.5},", "")).replace(
            "float[N,3] x", "float[N,3] x, float half"
        ),
        graph(DONE.replace("Div(x, root)", "Div(root, x)")),
        graph(DONE.replace("g = Add(t, one)", "g = Sum(t, one, x)")),
        graph(DONE.replace("y = Mul(p, half)", "d = Add(x, two)  y = Div(p, d)")),
        graph(DONE.replace("y = Mul(p, half)", "d = Sub(two, two)  y = Div(p, d)")),
        # To the powers of 4 and 9.
        graph(
            "q = Pow(x, four)  r = Mul(q, cube)  s = Add(r, one)  p = Mul(x, slope)"
            "  a = Mul(p, s)  " + TANH,
            weights=WEIGHTS.replace("float root", "float four = {4.0}, float root"),
        ),
        graph(
            "n = Pow(x, three)  q = Pow(n, three)  r = Mul(q, cube)  s = Add(x, r)"
            "  a = Mul(s, slope)  " + TANH
        ),
    ],
)
def test_what_only_looks_like_it(parse, text):
    stats = FUSE_ACTIVATION.run(parse(text))
    assert not stats.changed
    assert not stats.refused


def test_a_function_of_what_an_integer_cast_leaves_is_another(parse):
    body = DONE.replace(
        "a = Div(x, root)", "i = Cast<to = 7>(x) f = Cast<to = 1>(i) a = Div(f, root)"
    )
    assert not FUSE_ACTIVATION.run(parse(graph(body))).changed


def test_where_the_opset_stays_the_engines_own_serve(parse):
    for body, expected in ((DONE, "Gelu"), (None, "FastGelu")):
        text = body or (
            "q = Pow(x, three)  r = Mul(q, cube)  s = Add(x, r)  a = Mul(s, slope)  " + TANH
        )
        text = f"""<ir_version: 8, opset_import: ["" : 17]>
            g (float[2,3] x, float[1,1,4] p9, float[3] z) => (float[2,3] y, float[1,1,4] q9)
            {WEIGHTS} {{ {text} q9 = Resize(p9, z, z) }}"""
        generic, ours = parse(text), parse(text)
        assert not FUSE_ACTIVATION.run(generic).changed
        assert FUSE_ACTIVATION.run(ours, Context("ort-cpu")).counts == (("gelu-ort", 1),)
        assert ours.graph.node(0).op_type == expected
        assert ours.graph.node(0).domain == "com.microsoft"


def test_a_scalar_is_nothing_for_the_engines_own(parse):
    body = "q = Pow(x, three)  r = Mul(q, cube)  s = Add(x, r)  a = Mul(s, slope)  " + TANH
    for shape, expected in (("float", False), ("float[1]", True)):
        stats = apply_rules(
            parse(graph(body, x=shape)), "activation", [GELU_OLD_OPSET], target="ort-cpu"
        )
        assert stats.changed == expected
        if not expected:
            assert reasons(stats, "gelu-ort") == ["FastGelu takes no scalar, and 'x' may be one"]


def draw_gelu(draw):
    pattern, random = Pattern(), np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float32, np.float32, np.float16]))
    shape = tuple(draw(st.integers(1, 4)) for _ in range(draw(st.integers(0, 3))))
    x = pattern.input(random.normal(size=shape).astype(dtype))

    def number(value):
        dims = draw(st.sampled_from([(), (1,) * len(shape)]))
        return pattern.weight(np.full(dims, value, dtype))

    def times(left, right):
        return pattern.add("Mul", *draw(st.permutations([left, right])))

    def plus(left, right):
        return pattern.add("Add", *draw(st.permutations([left, right])))

    if draw(st.booleans()):
        if draw(st.booleans()):
            argument = pattern.add("Div", x, number(math.sqrt(2)))
        else:
            argument = times(x, number(math.sqrt(0.5)))
        gate = plus(pattern.add("Erf", argument), number(1))
    else:
        if draw(st.booleans()):
            cubed = pattern.add("Pow", x, number(3))
            inner = plus(x, times(cubed, number(0.044715)))
        else:
            inner = times(x, plus(times(times(x, x), number(0.044715)), number(1)))
        slope = math.sqrt(2 / math.pi)
        if draw(st.booleans()):
            times(x, pattern.add("Sigmoid", times(inner, number(2 * slope))))
            return pattern
        gate = plus(pattern.add("Tanh", times(inner, number(slope))), number(1))
    order = draw(st.sampled_from(["first", "last", "gate"]))
    if order == "first":
        times(times(x, number(0.5)), gate)
    elif order == "last":
        times(times(x, gate), number(0.5))
    else:
        times(times(gate, number(0.5)), x)
    return pattern


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_outputs_stay_in_any_surrounding(data):
    target, rules = data.draw(
        st.sampled_from([("generic", FUSE_ACTIVATION.rules), ("ort-cpu", [GELU_OLD_OPSET])])
    )

    def rewrite(model):
        apply_rules(model, "activation", rules, target=target)
        assert not apply_rules(model, "activation", rules, target=target).changed

    check_kept(surround(data.draw, draw_gelu(data.draw)), rewrite)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_it_fires_where_nothing_is_in_the_way(data):
    model = alone(draw_gelu(data.draw))
    assert apply_rules(model, "activation", FUSE_ACTIVATION.rules).counts == (("gelu", 1),)
    assert len(model.graph) == 1


def test_the_engines_own_fire_on_what_is_drawn():
    fired = times_each_fires(draw_gelu, [GELU_OLD_OPSET], target="ort-cpu")
    assert fired["gelu-ort"] >= 20
