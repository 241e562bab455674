"""Normalisation in primitive operators becomes LayerNormalization, RMSNormalization and so on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, alone, check_kept, surround, times_each_fires

from leptonc.passes.fusions.norm.fuse import FUSE_NORMALIZATION
from leptonc.passes.pipeline import Context
from leptonc.passes.rewriting.rewriter import apply_rules

HEAD = '<ir_version: 10, opset_import: ["" : 23]>\n'
WEIGHTS = """<int64[1] last = {-1}, float two = {2.0}, float e = {0.01}, float one = {1.0},
    float half = {0.5}, float minus_half = {-0.5}>"""
MEAN_SQUARE = "square = Pow(c, two)  v = ReduceMean(square, last)  w = Add(v, e)"
CENTRE = "m = ReduceMean(x, last)  c = Sub(x, m)  " + MEAN_SQUARE


def graph(body, *, x="float[2,3]", y="float[2,3] y", head=HEAD, weights=WEIGHTS):
    return f"{head} g ({x} x) => ({y})\n{weights}\n{{ {body} }}"


def norm(operator, *, x="float[2,3]", attributes="axis: int = -1", head=HEAD, ones="1.0, 1.0, 1.0"):
    kind = x.split("[")[0]
    return (
        f"{head} g ({x} x) => ({x} y) <{kind}[3] norm_scale = {{{ones}}}>"
        f"{{ y = {operator}<{attributes}, epsilon: float = 0.01, stash_type: int = 1>"
        "(x, norm_scale) }"
    )


def operators(model):
    return [node.op_type for node in model.graph]


def reasons(stats, rule):
    return [refusal.reason for refusal in stats.refused if refusal.rule == rule]


@pytest.mark.parametrize(
    "body",
    [
        CENTRE + " r = Sqrt(w)  y = Div(c, r)",
        CENTRE + " r = Sqrt(w)  i = Reciprocal(r)  y = Mul(c, i)",
        CENTRE + " r = Sqrt(w)  i = Div(one, r)  y = Mul(i, c)",
        CENTRE + " i = Pow(w, minus_half)  y = Mul(c, i)",
        CENTRE + " r = Pow(w, half)  y = Div(c, r)",
        CENTRE + " i = Pow(w, minus_half)  r = Reciprocal(i)  y = Div(c, r)",
        "m = ReduceMean(x, last)  c = Sub(x, m)  d = Sub(x, m)  square = Mul(d, d)"
        " v = ReduceMean(square, last)  w = Add(e, v)  r = Sqrt(w)  y = Div(c, r)",
        "m = ReduceMean(x, last)  c = Sub(x, m)  n = ReduceMean(x, last)  d = Sub(x, n)"
        " square = Mul(d, d)  v = ReduceMean(square, last)  w = Add(e, v)  r = Sqrt(w)"
        " y = Div(c, r)",
    ],
)
def test_every_spelling_of_layer_normalisation(parse, assert_graph, body):
    model = parse(graph(body))
    assert FUSE_NORMALIZATION.run(model).counts == (("layer-norm", 1),)
    assert_graph(model, norm("LayerNormalization"))


@pytest.mark.parametrize(
    "body",
    [
        " r = Sqrt(w)  y = Div(x, r)",
        " r = Sqrt(w)  i = Reciprocal(r)  y = Mul(i, x)",
        " r = Sqrt(w)  i = Div(one, r)  y = Mul(x, i)",
        " i = Pow(w, minus_half)  y = Mul(x, i)",
    ],
)
@pytest.mark.parametrize("square", ["square = Pow(x, two)", "square = Mul(x, x)"])
def test_every_spelling_of_rms_normalisation(parse, assert_graph, body, square):
    model = parse(graph(square + "  v = ReduceMean(square, last)  w = Add(v, e)" + body))
    assert FUSE_NORMALIZATION.run(model).counts == (("rms-norm", 1),)
    assert_graph(model, norm("RMSNormalization"))


RMS = "square = Mul(x, x)  v = ReduceMean(square, last)  w = Add(v, e)  r = Sqrt(w)  y = Div(x, r)"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("generic", ["RMSNormalization"]),
        ("ort-cpu", ["RMSNormalization"]),
        ("ort-cuda", ["RMSNormalization"]),
        ("primitive", ["Mul", "ReduceMean", "Add", "Sqrt", "Div"]),
    ],
)
def test_an_engine_that_fuses_it_keeps_the_primitive_form(parse, target, expected):
    model = parse(graph(RMS))
    FUSE_NORMALIZATION.run(model, Context(target))
    assert operators(model) == expected


def test_the_opset_is_raised_from_attributes_to_inputs(parse, assert_graph):
    old = '<ir_version: 8, opset_import: ["" : 13]>\n'
    body = RMS.replace("ReduceMean(square, last)", "ReduceMean<axes = [-1]>(square)")
    model = parse(graph(body, head=old, weights="<float e = {0.01}>"))
    FUSE_NORMALIZATION.run(model)
    head = '<ir_version: 8, opset_import: ["" : 23]>\n'
    assert_graph(model, norm("RMSNormalization", head=head))
    assert model.opset_imports[""] == 23


def test_the_engines_own_name_serves_where_the_opset_stays(parse):
    """Rounding up changed at opset 22, so the graph around it cannot be raised."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[2,3] x, float[1,1,4] p) => (float[2,3] y, float[1,1,1] q)
        {WEIGHTS} {{ {RMS} q = MaxPool<kernel_shape = [4], ceil_mode = 1>(p) }}"""
    generic, ours = parse(text), parse(text)
    stats = FUSE_NORMALIZATION.run(generic)
    assert not stats.changed
    assert reasons(stats, "rms-norm") == [
        "opset 20 is not raised to 23: MaxPool ('') changed in between"
    ]
    FUSE_NORMALIZATION.run(ours, Context("ort-cpu"))
    assert operators(ours) == ["SimplifiedLayerNormalization", "MaxPool"]


def test_a_deviation_in_a_wider_type(parse, assert_graph):
    """Half precision, whose squares are summed in float32."""
    body = """m = ReduceMean(x, last)  c = Sub(x, m)  wide = Cast<to = 1>(c)
        square = Pow(wide, two)  v = ReduceMean(square, last)  w = Add(v, e)  s = Sqrt(w)
        r = Cast<to = 10>(s)  y = Div(c, r)"""
    model = parse(graph(body, x="float16[2,3]", y="float16[2,3] y"))
    FUSE_NORMALIZATION.run(model)
    ones = "15360, 15360, 15360"  # The bits of 1.0.
    assert_graph(model, norm("LayerNormalization", x="float16[2,3]", ones=ones))


def test_a_scale_before_the_division(parse, assert_graph):
    weights = WEIGHTS.replace(">", ", float[3] s = {1.0, 2.0, 3.0}>")
    model = parse(graph(CENTRE + " r = Sqrt(w)  t = Mul(s, c)  y = Div(t, r)", weights=weights))
    stats = FUSE_NORMALIZATION.run(model)
    assert stats.counts == (("layer-norm", 1), ("norm-scale", 1))
    expected = norm("LayerNormalization", ones="1.0, 2.0, 3.0").replace("norm_scale", "s")
    assert_graph(model, expected)


def test_several_axes(parse, assert_graph):
    weights = WEIGHTS.replace("int64[1] last = {-1}", "int64[2] last = {2, 1}")
    body = CENTRE + " r = Sqrt(w)  s = Div(c, r)  y = Mul(s, k)"
    weights = weights.replace(">", ", float[2,2] k = {1.0, 2.0, 3.0, 4.0}>")
    model = parse(graph(body, x="float[N,2,2]", y="float[N,2,2] y", weights=weights))
    FUSE_NORMALIZATION.run(model)
    assert_graph(
        model,
        HEAD + "g (float[N,2,2] x) => (float[N,2,2] y) <float[2,2] k = {1.0, 2.0, 3.0, 4.0}>"
        "{ y = LayerNormalization<axis: int = -2, epsilon: float = 0.01, stash_type: int = 1>"
        "(x, k) }",
    )


INSTANCE = WEIGHTS.replace("int64[1] last = {-1}", "int64[2] last = {2, 3}")


@pytest.mark.parametrize("x", ["float[1,2,2,2]", "float[1,2,H,W]"])
def test_instance_normalisation(parse, assert_graph, x):
    weights = INSTANCE.replace(">", ", float[2,1,1] k = {3.0, 4.0}, float[1,2,1,1] b = {5.0, 6.0}>")
    body = CENTRE + " r = Sqrt(w)  n = Div(c, r)  s = Mul(k, n)  y = Add(s, b)"
    model = parse(graph(body, x=x, y=f"{x} y", weights=weights))
    stats = FUSE_NORMALIZATION.run(model)
    assert stats.counts == (("channel-norm-affine", 2), ("instance-norm", 1))
    assert_graph(
        model,
        f"{HEAD} g ({x} x) => ({x} y)"
        "<float[2] norm_weight_2 = {3.0, 4.0}, float[2] norm_weight_3 = {5.0, 6.0}>"
        "{ y = InstanceNormalization<epsilon: float = 0.01>(x, norm_weight_2, norm_weight_3) }",
    )


def test_a_scale_of_any_shape_before_the_division(parse, run):
    """It stays as a product where it has more axes than x, or other sizes."""
    for scale in ("float[2,1] s = {2.0, 3.0}", "float[2,2,1] s = {2.0, 3.0, 4.0, 5.0}"):
        weights = WEIGHTS.replace(">", f", {scale}>")
        text = graph(
            CENTRE + " r = Sqrt(w)  t = Mul(s, c)  y = Div(t, r)",
            y="float[B,2,3] y" if "2,2" in scale else "float[2,3] y",
            weights=weights,
            head=HEAD.replace("23", "20"),
        )
        model = parse(text)
        feeds = {"x": np.array([[1, 2, 4], [-3, 0, 7]], np.float32)}
        before = run(model, feeds)
        assert FUSE_NORMALIZATION.run(model).counts == (("layer-norm", 1),)
        assert operators(model) == ["LayerNormalization", "Mul"]
        np.testing.assert_allclose(run(model, feeds)[0], before[0], rtol=1e-5, atol=1e-6)


def test_a_difference_with_another_mean_is_normalised_by_its_size(parse):
    """c = x - m(z) is not centred: c / sqrt(m(c^2) + e) is RMSNormalization of c."""
    for other in ("m = ReduceMean(z, last)  c = Sub(x, m)", "c = Sub(x, half)"):
        body = other + "  " + MEAN_SQUARE + " r = Sqrt(w)  y = Div(c, r)"
        model = parse(graph(body).replace("float[2,3] x)", "float[2,3] x, float[2,3] z)"))
        assert FUSE_NORMALIZATION.run(model).counts == (("rms-norm", 1),)
        assert operators(model)[-2:] == ["Sub", "RMSNormalization"]


@pytest.mark.parametrize("target", ["generic", "ort-cpu", "ort-cuda"])
def test_the_heads_of_queries_and_keys(parse, target):
    """QK-norm: each head of [B, S, N*D] is normalised, with one scale for all heads."""
    weights = WEIGHTS.replace(">", ", float[4] s = {1, 2, 3, 4}, int64[4] apart = {0, 0, 2, 4}>")
    body = "h = Reshape(x, apart)  " + RMS.replace("x", "h").replace("y =", "n =")
    body += "  k = Mul(s, n)  y = Transpose<perm: ints = [0, 2, 1, 3]>(k)"
    model = parse(graph(body, x="float[B,S,8]", y="float[B,2,S,4] y", weights=weights))
    stats = FUSE_NORMALIZATION.run(model, Context(target))
    assert stats.counts == (("norm-scale", 1), ("rms-norm", 1))
    assert operators(model) == ["Reshape", "RMSNormalization", "Transpose"]
    assert model.graph.node(1).inputs[1].name == "s"


def test_one_axis_after_the_channels_is_an_instance_where_the_scale_says_so(parse):
    def fused(weight, dims):
        weights = WEIGHTS.replace(">", f", float[{dims}] k = {{{weight}}}>")
        body = CENTRE + " r = Sqrt(w)  n = Div(c, r)  y = Mul(k, n)"
        model = parse(graph(body, x="float[1,2,3]", y="float[1,2,3] y", weights=weights))
        FUSE_NORMALIZATION.run(model)
        return operators(model)

    assert fused("3.0, 4.0", "2,1") == ["InstanceNormalization"]
    assert fused("3.0, 4.0, 5.0", "3") == ["LayerNormalization"]
    assert fused("3.0", "1") == ["LayerNormalization"]


def test_two_axes_after_the_channels_with_a_scale_of_their_shape(parse):
    weights = INSTANCE.replace(">", ", float[2,2] k = {1.0, 2.0, 3.0, 4.0}>")
    body = CENTRE + " r = Sqrt(w)  n = Div(c, r)  y = Mul(k, n)"
    model = parse(graph(body, x="float[1,2,2,2]", y="float[1,2,2,2] y", weights=weights))
    FUSE_NORMALIZATION.run(model)
    assert operators(model) == ["LayerNormalization"]


BRAIN = "<int64[1] last = {-1}, bfloat16 e = {15395}>"
DIVIDED = CENTRE + " r = Sqrt(w)  y = Div(c, r)"


@pytest.mark.parametrize(
    ("text", "rule", "reason"),
    [
        (
            graph(DIVIDED, y="float[2,3] y, float[2,3] c"),
            "layer-norm",
            "'c' is an output of the graph",
        ),
        (
            graph(DIVIDED + " [other] z = Neg(r)", y="float[2,3] y, float[2,1] z"),
            "layer-norm",
            "'r' is also read by 'other' (Neg)",
        ),
        (
            graph(DIVIDED, x="float[2,N]", y="float[2,N] y"),
            "layer-norm",
            "the mean is not known to be over the last axes, of known sizes",
        ),
        (
            graph(DIVIDED, weights=WEIGHTS.replace("{-1}", "{0}")),
            "layer-norm",
            "the mean is not known to be over the last axes, of known sizes",
        ),
        (
            graph(
                DIVIDED,
                x="double[2,3]",
                y="double[2,3] y",
                weights=WEIGHTS.replace("float e", "double e"),
            ),
            "layer-norm",
            "the element type is not float32 or float16",
        ),
        (
            graph(
                DIVIDED.replace("Add(v, e)", "Identity(v)")
                .replace("w = Identity(v)", "")
                .replace("Sqrt(w)", "Sqrt(v)")
            ),
            "layer-norm",
            "nothing is added under the root, and a kernel makes NaN of equal elements",
        ),
        (
            graph(
                DIVIDED,
                x="float[1,C,H,W]",
                y="float[1,C,H,W] y",
                weights=INSTANCE,
            ),
            "instance-norm",
            "the number of channels is not known",
        ),
        (
            graph(
                DIVIDED,
                x="float[1,2,2,2]",
                y="float[1,2,2,2] y, float[1,2,2,2] c",
                weights=INSTANCE,
            ),
            "instance-norm",
            "'c' is an output of the graph",
        ),
        (
            # As many sizes are known behind the axis as there are axes, but of others.
            graph(
                DIVIDED,
                x="float[2,N,3]",
                y="float[2,N,3] y",
                weights=WEIGHTS.replace("{-1}", "{1}"),
            ),
            "layer-norm",
            "the mean is not known to be over the last axes, of known sizes",
        ),
        (
            graph(RMS, y="float[2,3] y, float[2,3] square"),
            "rms-norm",
            "'square' is an output of the graph",
        ),
        (
            graph(RMS, x="float[2,N]", y="float[2,N] y"),
            "rms-norm",
            "the mean is not known to be over the last axes, of known sizes",
        ),
        (
            graph(RMS.replace("w = Add(v, e)  r = Sqrt(w)", "r = Sqrt(v)")),
            "rms-norm",
            "nothing is added under the root, and a kernel makes NaN of equal elements",
        ),
        (
            graph(RMS, x="bfloat16[2,3]", y="bfloat16[2,3] y", weights=BRAIN),
            "rms-norm",
            "the element type is not float32 or float16",
        ),
    ],
)
def test_a_precondition_that_does_not_hold(parse, assert_graph, text, rule, reason):
    model = parse(text)
    stats = FUSE_NORMALIZATION.run(model)
    assert not stats.changed
    assert reason in reasons(stats, rule)


@pytest.mark.parametrize(
    "text",
    [
        graph(DIVIDED.replace("Div(c, r)", "Div(x, r)")),
        graph(DIVIDED.replace("Div(c, r)", "Div(r, c)")),
        graph(DIVIDED.replace("Pow(c, two)", "Pow(c, one)")),
        graph(DIVIDED, weights=WEIGHTS.replace("0.01", "-0.01")),
        graph(
            DIVIDED,
            weights=WEIGHTS.replace("float e = {0.01}", "float[1,1,1] e = {0.01}"),
            y="float[1,2,3] y",
        ),
        graph(
            "m = ReduceMean<keepdims = 0>(x, last)  c = Sub(x, m)  square = Mul(c, c)"
            " v = ReduceMean<keepdims = 0>(square, last)  w = Add(v, e)  r = Sqrt(w)  y = Div(c, r)",
            x="float[3,3]",
            y="float[3,3] y",
        ),
        graph(
            "m = ReduceMean(x, last)  c = Sub(x, m)  square = Mul(c, c)"
            " v = ReduceMean(square, other)  w = Add(v, e)  r = Sqrt(w)  y = Div(c, r)",
            weights=WEIGHTS.replace(">", ", int64[1] other = {0}>"),
        ),
        graph(DIVIDED, weights=WEIGHTS.replace("float e = {0.01}", "float[3] e = {0.1,0.2,0.3}")),
        graph(DIVIDED.replace("Add(v, e)", "Sub(v, e)")),
        graph(DIVIDED.replace("ReduceMean(square, last)", "ReduceMean(square)")),
        graph("f = Abs(x)  " + DIVIDED.replace("ReduceMean(square", "ReduceMean(f")),
        graph(DIVIDED.replace("Div(c, r)", "Div(c, w)")),
        graph(CENTRE + " i = Reciprocal(w)  y = Mul(c, i)"),
        graph(CENTRE + " r = Sqrt(w)  y = Mul(c, r)"),
        graph(CENTRE + " r = Pow(w, half)  y = Mul(c, r)"),
        graph(CENTRE + " r = Pow(w, two)  y = Div(c, r)"),
        graph(CENTRE + " r = Sqrt(w)  i = Div(two, r)  y = Mul(c, i)"),
        graph(CENTRE + " r = Sqrt(w)  i = Div(r, one)  y = Mul(c, i)"),
        graph(
            "o = ReduceMean(z, last)  d = Sub(z, o)  "
            + DIVIDED.replace("Pow(c, two)", "Pow(d, two)")
        ).replace("float[2,3] x)", "float[2,3] x, float[2,3] z)"),
        graph(DIVIDED.replace("m = ReduceMean(x, last)", "m = ReduceMax(x, last)")).replace(
            "Pow(c, two)", "Pow(x, two)"
        ),
    ],
)
def test_what_only_looks_like_it(parse, text):
    model = parse(text)
    stats = FUSE_NORMALIZATION.run(model)
    assert not stats.changed
    assert not reasons(stats, "layer-norm")


def test_a_default_is_no_constant(parse):
    text = graph(DIVIDED).replace("g (float[2,3] x)", "g (float[2,3] x, float e)")
    assert not FUSE_NORMALIZATION.run(parse(text)).changed


def draw_norm(draw, pattern, *, scaled=False):
    """Add a normalisation in any spelling, perhaps scaled before the division; return it."""
    dtype = draw(st.sampled_from([np.float32, np.float32, np.float16]))
    images = draw(st.booleans())
    rank = 4 if images else draw(st.integers(1, 4))
    shape = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    first = 2 if images and draw(st.booleans()) else draw(st.integers(0, rank - 1))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    x = pattern.input(random.normal(size=shape).astype(dtype))
    axes = list(range(first, rank))
    if draw(st.booleans()):
        axes = [axis - rank for axis in axes]
    reduced = pattern.weight(np.array(axes, np.int64))
    number_shape = draw(st.sampled_from([(), (1,), (1,) * rank]))
    epsilon = pattern.weight(np.full(number_shape, 0.01, dtype))
    centre = x
    if draw(st.booleans()):
        centre = pattern.add("Sub", x, pattern.add("ReduceMean", x, reduced))
    if draw(st.booleans()):
        square = pattern.add("Mul", centre, centre)
    else:
        square = pattern.add("Pow", centre, pattern.weight(np.array(2.0, dtype)))
    total = pattern.add("Add", pattern.add("ReduceMean", square, reduced), epsilon)
    if scaled:
        forms = [(), shape[first:], shape, shape[:1] + (1,) * (rank - 1)]
        scale = random.normal(size=draw(st.sampled_from(forms))).astype(dtype)
        centre = pattern.add("Mul", *draw(st.permutations([centre, pattern.weight(scale)])))
    how = draw(st.sampled_from(["div", "reciprocal", "power"]))
    if how == "div":
        out = pattern.add("Div", centre, pattern.add("Sqrt", total))
    elif how == "reciprocal":
        root = pattern.add("Reciprocal", pattern.add("Sqrt", total))
        out = pattern.add("Mul", root, centre)
    else:
        root = pattern.add("Pow", total, pattern.weight(np.array(-0.5, dtype)))
        out = pattern.add("Mul", centre, root)
    return out, shape, first, dtype, random


def draw_scaled(draw):
    """Draw a normalisation with what may follow it."""
    pattern = Pattern()
    out, shape, first, dtype, random = draw_norm(draw, pattern, scaled=draw(st.booleans()))
    for operator in ("Mul", "Add"):
        if draw(st.booleans()):
            forms = [(), (1,), shape[first:], (1, *shape[first:]), shape, (shape[0],)]
            if len(shape) > 2:
                forms += [(shape[1], *(1,) * (len(shape) - 2))] * 3
            dims = draw(st.sampled_from(forms))
            try:
                np.broadcast_shapes(dims, shape)
            except ValueError:
                continue
            array = random.normal(size=dims).astype(dtype)
            weight = pattern.weight(array) if draw(st.booleans()) else pattern.input(array)
            out = pattern.add(operator, *draw(st.permutations([out, weight])))
    pattern.add("Relu", out)
    return pattern


# As where the opset cannot be raised.
OLD_OPSET = tuple(rule for rule in FUSE_NORMALIZATION.rules if rule.opset <= 17)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_outputs_stay_in_any_surrounding(data):
    target, rules = data.draw(
        st.sampled_from([("generic", FUSE_NORMALIZATION.rules), ("ort-cpu", OLD_OPSET)])
    )

    def rewrite(model):
        apply_rules(model, "norm", rules, target=target)
        assert not apply_rules(model, "norm", rules, target=target).changed

    check_kept(surround(data.draw, draw_scaled(data.draw)), rewrite, valid=target == "generic")


def test_each_rule_fires_on_what_is_drawn():
    fired = times_each_fires(draw_scaled, FUSE_NORMALIZATION.rules)
    assert min(fired[name] for name in ("layer-norm", "rms-norm", "instance-norm")) >= 1
    assert times_each_fires(draw_scaled, OLD_OPSET, target="ort-cpu")["rms-norm-ort"] >= 5


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_it_fires_where_nothing_is_in_the_way(data):
    pattern = Pattern()
    draw_norm(data.draw, pattern)
    model = alone(pattern)
    stats = apply_rules(model, "norm", FUSE_NORMALIZATION.rules)
    assert stats.changed == 1
    assert len(model.graph) == 1
