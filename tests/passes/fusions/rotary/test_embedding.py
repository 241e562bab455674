"""Rotary embeddings: from their primitive forms to one operator."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, surround

from leptonc.passes.fusions.rotary import embedding as rotary_embedding
from leptonc.passes.fusions.rotary.fuse import FUSE_ROTARY
from leptonc.passes.pipeline import Context
from leptonc.passes.rewriting.rewriter import apply_rules

GRAPH = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1, "test" : 1]>\n'

TABLES = """
   angles = Mul(positions, frequencies)
   both = Concat<axis: int = -1>(angles, angles)
   narrow_cos = Cos(both)
   narrow_sin = Sin(both)
   cos = Unsqueeze(narrow_cos, one)
   sin = Unsqueeze(narrow_sin, one)
"""

TURN = """
   low = Slice(x, zero, two, three)
   high = Slice(x, two, end, three)
   negative = Neg(high)
   turned = Concat<axis: int = -1>(negative, low)
"""

SUM = """
   straight = Mul(x, cos)
   across = Mul(turned, sin)
   y = Add(straight, across)
"""

WEIGHTS = """
   <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3},
    int64[1] end = {9223372036854775807}, float minus = {-1.0},
    float[2] frequencies = {1.0, 0.1}, int64[2] twos = {2, 2}, int64[2] uneven = {1, 3}>
"""


def model(
    body: str,
    *,
    x: str = "float[B,2,S,4]",
    positions: str = "float[1,S,1]",
    head: str = GRAPH,
    more: str = "",
) -> str:
    return (
        f"{head} g ({x} x, {positions} positions{more}) => (float[B,N,S,D] y)\n{WEIGHTS}\n"
        f"{{ {body} }}"
    )


FULL = model(TABLES + TURN + SUM)


def operators(found: ir.Model) -> Counter[str]:
    return Counter(f"{n.domain}.{n.op_type}".lstrip(".") for n in found.graph)


def reasons(found: ir.Model, target: str) -> list[str]:
    return [refusal.reason for refusal in FUSE_ROTARY.run(found, Context(target)).refused]


def test_half_for_the_standard(parse, assert_graph):
    found = parse(FULL)
    FUSE_ROTARY.run(found)
    expected = model(
        """
   angles = Mul(positions, frequencies)
   c = Cos(angles)
   size = Shape<start: int = 0, end: int = 1>(x)
   batch = Concat<axis: int = 0>(size, ones)
   cos = Expand(c, batch)
   s = Sin(angles)
   sin = Expand(s, batch)
   y = RotaryEmbedding(x, cos, sin)
"""
    )
    assert operators(found) == operators(
        parse(expected.replace("float minus", "int64[2] ones = {1, 1}, float minus"))
    )
    turn = found.graph.outputs[0].producer()
    assert turn is not None
    assert turn.inputs[0] is found.graph.inputs[0]
    assert [v.producer().inputs[0].producer().op_type for v in turn.inputs[1:]] == ["Cos", "Sin"]


def test_half_for_the_engine(parse, assert_graph):
    found = parse(FULL)
    FUSE_ROTARY.run(found, Context("ort-cpu"))
    assert_graph(
        found,
        GRAPH
        + """g (float[B,2,S,4] x, float[1,S,1] positions) => (float[B,N,S,D] y)
<float[2] frequencies = {1.0, 0.1}, int64[1] shape = {0}, int64[1] shape_1 = {0},
 int64[1] shape_2 = {0}>
{
   angles = Mul(positions, frequencies)
   y_rotary_shared = Cos(angles)
   y_rotary_shared_1 = Squeeze(y_rotary_shared, shape)
   y_rotary_shared_2 = Sin(angles)
   y_rotary_shared_3 = Squeeze(y_rotary_shared_2, shape_1)
   y = com.microsoft.RotaryEmbedding(x, shape_2, y_rotary_shared_1, y_rotary_shared_3)
}""",
    )


def test_primitive_stays(parse, assert_graph):
    found = parse(FULL)
    assert not FUSE_ROTARY.run(found, Context("primitive")).changed
    assert_graph(found, FULL)


def test_two_rotations_share_their_tables(parse):
    second = (TURN + SUM).replace("x", "z")
    for name in ("low", "high", "negative", "turned", "straight", "across", "y"):
        second = second.replace(f" {name} =", f" {name}2 =").replace(f"({name},", f"({name}2,")
        second = second.replace(f", {name})", f", {name}2)").replace(f"({name})", f"({name}2)")
    second = second.replace("azis", "axis")
    text = model(TABLES + TURN + SUM + second, more=", float[B,2,S,4] z").replace(
        "(float[B,N,S,D] y)", "(float[B,N,S,D] y, float[B,N,S,D] y2)"
    )
    for target in ("generic", "ort-cpu"):
        found = parse(text)
        FUSE_ROTARY.run(found, Context(target))
        one, two = (value.producer() for value in found.graph.outputs)
        assert one.op_type == two.op_type == "RotaryEmbedding"
        tables = slice(2, None) if one.domain else slice(1, None)
        assert one.inputs[tables] == two.inputs[tables]


VARIANTS = {
    "split": TURN.replace(
        "low = Slice(x, zero, two, three)\n   high = Slice(x, two, end, three)",
        "low, high = Split<axis: int = 3, num_outputs: int = 2>(x)",
    ),
    "sizes": TURN.replace(
        "low = Slice(x, zero, two, three)\n   high = Slice(x, two, end, three)",
        "low, high = Split<axis: int = -1>(x, twos)",
    ),
    "product": TURN.replace("Neg(high)", "Mul(minus, high)"),
    "last axis by number": TURN.replace("axis: int = -1", "axis: int = 3"),
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("target", ["generic", "ort-cpu", "ort-cuda"])
def test_spellings(parse, variant, target):
    found = parse(model(TABLES + variant + SUM))
    FUSE_ROTARY.run(found, Context(target))
    assert sum(n.op_type == "RotaryEmbedding" for n in found.graph) == 1


@pytest.mark.parametrize(
    "sum_",
    [
        SUM.replace("Mul(x, cos)", "Mul(cos, x)"),
        SUM.replace("Mul(turned, sin)", "Mul(sin, turned)"),
        SUM.replace("Add(straight, across)", "Add(across, straight)"),
    ],
)
def test_orders(parse, sum_):
    found = parse(model(TABLES + TURN + sum_))
    FUSE_ROTARY.run(found)
    assert operators(found)["RotaryEmbedding"] == 1


SHARED = "the tables are not known to have one row for each position"
REFUSED = [
    (FULL.replace("float", "double"), "the operator is not made for DOUBLE"),
    (
        FULL.replace("positions, frequencies", "positions, wide")
        .replace("float minus", "float[4] wide = {1.0, 0.1, 0.2, 0.3}, float minus")
        .replace("Concat<axis: int = -1>(angles, angles)", "Identity(angles)"),
        "the cosines 'cos' are not proven to hold each column twice",
    ),
    (
        FULL.replace("(angles, angles)", "(angles, others)").replace(
            "both =", "others = Neg(angles)\n   both ="
        ),
        "the cosines 'cos' are not proven to hold each column twice",
    ),
    (
        FULL.replace(
            "sin = Unsqueeze(narrow_sin, one)",
            "odd = Abs(narrow_sin)\n   sin = Unsqueeze(odd, one)",
        ),
        "the sines 'sin' are not proven to hold each column twice",
    ),
    (model(TABLES + TURN + SUM, positions="float[1,P,1]"), SHARED),
    (model(TABLES + TURN + SUM, positions="float[1,1,1]"), SHARED),
    (model(TABLES + TURN + SUM, positions="float[P,S,1]"), SHARED),
    (model(TABLES + TURN + SUM, positions="float[S,1]"), SHARED),
    (FULL.replace("(narrow_cos, one)", "(narrow_cos, two)"), SHARED),
    (FULL.replace("(narrow_cos, one)", "(narrow_cos, uneven)"), SHARED),
    (FULL.replace("Unsqueeze(narrow_cos, one)", "test.Unknown(narrow_cos)"), SHARED),
    (
        FULL.replace("_cos, one)", "_cos, two)")
        .replace("_sin, one)", "_sin, two)")
        .replace("float[B,2,S,4]", "float[B,S,N,4]"),
        SHARED,
    ),
    (
        FULL.replace("(float[B,N,S,D] y)", "(float[B,N,S,D] y, float[B,N,S,D] turned)"),
        "'turned' is an output of the graph",
    ),
    (
        FULL.replace("(float[B,N,S,D] y)", "(float[B,N,S,D] y, float[B,N,S,D] w)").replace(
            "y = Add", "w = Neg(straight)\n   y = Add"
        ),
        "'straight' is also read by",
    ),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_near_misses(parse, text, reason, target):
    found = parse(text)
    stats = FUSE_ROTARY.run(found, Context(target))
    assert not stats.changed
    assert len(stats.refused) == 1
    assert stats.refused[0].reason.startswith(reason)


OTHER = [
    FULL.replace("Slice(x, zero, two", "Slice(x, zero, one"),
    FULL.replace("Slice(x, two, end", "Slice(x, one, end"),
    FULL.replace("(negative, low)", "(low, negative)"),
    FULL.replace("(negative, low)", "(negative, low, low)"),
    FULL.replace("Neg(high)", "Abs(high)"),
    FULL.replace("low = Slice(x,", "low = Slice(positions,"),
    FULL.replace("Mul(x, cos)", "Mul(turned, cos)"),
    FULL.replace("Add(straight, across)", "Sub(straight, across)"),
    FULL.replace("Add(straight, across)", "Add(x, across)"),
    FULL.replace("Add(straight, across)", "Add(straight, turned)"),
    FULL.replace("two, three)", "two, two)"),
    FULL.replace("Concat<axis: int = -1>(negative", "Concat<axis: int = 2>(negative"),
    model(TABLES + TURN + SUM, x="float[B,2,S,D]"),
    model(TABLES + TURN + SUM, x="float[A,B,2,S,4]"),
    FULL.replace("Neg(high)", "Mul(two_, high)").replace(
        "float minus", "float two_ = {2.0}, float minus"
    ),
    FULL.replace(
        "low = Slice(x, zero, two, three)\n   high = Slice(x, two, end, three)",
        "low, high = Split<axis: int = -1>(x, uneven)",
    ),
]


@pytest.mark.parametrize("text", OTHER)
def test_other_forms(parse, text):
    found = parse(text)
    stats = FUSE_ROTARY.run(found)
    assert not stats.changed
    assert not stats.refused


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_heads_behind_the_positions(parse, target):
    text = model(TABLES + TURN + SUM, x="float[1,S,2,4]")
    found = parse(text.replace("(narrow_cos, one)", "(narrow_cos, two)").replace(
        "(narrow_sin, one)", "(narrow_sin, two)"
    ))  # fmt: skip
    assert FUSE_ROTARY.run(found, Context(target)).changed == 1
    back = found.graph.outputs[0].producer()
    turn = back.inputs[0].producer()
    rows = turn.inputs[0].producer()
    assert [n.op_type for n in (rows, turn, back)] == ["Reshape", "RotaryEmbedding", "Reshape"]
    assert turn.attributes.get_int("num_heads") == 2
    assert rows.inputs[1].const_value.numpy().tolist() == [0, 0, 8]
    assert back.inputs[1].const_value.numpy().tolist() == [0, 0, 2, 4]


def flat(x: str, positions: str, axis: str) -> str:
    """Rotate something without an axis for heads."""
    tables = TABLES.partition("   cos =")[0].replace("narrow_", "")
    return model(tables + TURN.replace(", three)", f", {axis})") + SUM, x=x, positions=positions)


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_one_head_without_an_axis(parse, target):
    found = parse(flat("float[1,S,4]", "float[1,S,1]", "two"))
    assert FUSE_ROTARY.run(found, Context(target)).changed == 1
    turn = found.graph.outputs[0].producer()
    assert turn.op_type == "RotaryEmbedding"
    assert turn.attributes.get_int("num_heads") == 1


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_positions_without_a_batch_stay(parse, target):
    found = parse(flat("float[S,4]", "float[S,1]", "one"))
    assert reasons(found, target) == [SHARED]


PAIRS = """
   thin = Unsqueeze(angles, three)
   wide = Concat<axis: int = 3>(thin, thin)
   both = Reshape(wide, rows)
   narrow_cos = Cos(both)
   narrow_sin = Sin(both)
   cos = Unsqueeze(narrow_cos, one)
   sin = Unsqueeze(narrow_sin, one)
   even = Slice(x, zero, end, three, two)
   odd = Slice(x, one, end, three, two)
   negative = Neg(odd)
   first = Unsqueeze(negative, four)
   second = Unsqueeze(even, four)
   stack = Concat<axis: int = -1>(first, second)
   turned = Reshape(stack, whole)
"""


def pairs(angles: str) -> str:
    text = model(PAIRS + SUM, x="float[2,2,3,4]", positions="float[1,1,1]")
    return text.replace("float[1,1,1] positions", f"{angles} angles").replace(
        "float minus",
        "int64[1] four = {4}, int64[4] whole = {2, 2, 3, 4}, int64[3] rows = {2, 3, 4}, float minus",
    )


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_neighbours_that_are_turned_together(parse, target):
    found = parse(pairs("float[2,3,2]"))
    stats = FUSE_ROTARY.run(found, Context(target))
    assert stats.counts == (("rotary", 1),)
    node = found.graph.outputs[0].producer()
    assert node.op_type == "RotaryEmbedding"
    assert node.attributes.get_int("interleaved") == 1
    assert node.inputs[0] is found.graph.inputs[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("odd = Slice(x, one,", "odd = Slice(x, zero,"),
        ("even = Slice(x, zero,", "even = Slice(angles, zero,"),
        ("Concat<axis: int = -1>(first, second)", "Concat<axis: int = 3>(first, second)"),
        ("(first, second)", "(second, first)"),
        ("(first, second)", "(first, second, first)"),
        ("first = Unsqueeze(negative, four)", "first = Reshape(negative, column)"),
        ("second = Unsqueeze(even, four)", "second = Unsqueeze(even, three)"),
        ("turned = Reshape(stack, whole)", "turned = Reshape(x, whole)"),
        ("negative = Neg(odd)", "negative = Abs(odd)"),
        # The sum repeats both.
        ("float[2,2,3,4] x, float[2,3,2] angles", "float[1,2,3,4] x, float[1,3,2] angles"),
    ],
)
def test_other_turns_of_neighbours(parse, old, new):
    text = pairs("float[2,3,2]").replace(
        "four = {4}", "four = {4}, int64[5] column = {2, 2, 3, 2, 1}"
    )
    assert old in text
    text = text.replace(old, new)
    if "float[1,2,3,4] x" in text:
        text = text.replace("{2, 2, 3, 4}", "{2, 1, 3, 4}").replace("{2, 3, 4}", "{1, 3, 4}")
    stats = FUSE_ROTARY.run(parse(text))
    assert not stats.changed
    assert not stats.refused


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_rows_that_a_reshape_puts_in_another_order(parse, target):
    stats = FUSE_ROTARY.run(parse(pairs("float[3,2,2]")), Context(target))
    assert [refusal.reason for refusal in stats.refused] == [
        "the cosines 'cos' have their positions in another order"
    ]


@pytest.mark.parametrize("target", ["ort-cpu", "ort-cuda"])
def test_tables_for_each_of_the_batch_need_the_standard_operator(parse, target):
    text = model(TABLES + TURN + SUM, positions="float[B,S,1]").replace('"" : 23', '"" : 20')
    found = parse(text)
    assert FUSE_ROTARY.run(found, Context(target)).counts == (("rotary", 1),)
    assert found.opset_imports[""] == 23
    assert operators(found)["RotaryEmbedding"] == 1


def test_an_old_opset_is_raised_or_refused(parse):
    old = FULL.replace('"" : 23', '"" : 13')
    found = parse(old)
    FUSE_ROTARY.run(found)
    assert found.opset_imports[""] == 23
    assert operators(found)["RotaryEmbedding"] == 1
    barred = parse(
        old.replace("y = Add", "grid = GridSample(x, flow)\n   y = Add")
        .replace("positions)", "positions, float[B,2,S,2] flow)", 1)
        .replace("(float[B,N,S,D] y)", "(float[B,N,S,D] y, float[B,N,S,D] grid)")
        .replace('"" : 13', '"" : 18')
    )
    assert any("opset" in reason for reason in reasons(barred, "generic"))
    FUSE_ROTARY.run(barred, Context("ort-cpu"))
    assert operators(barred)["com.microsoft.RotaryEmbedding"] == 1
    assert barred.opset_imports[""] == 18


def draw_tables(draw, p: Pattern, shape: tuple[int, int], columns: int, *, pairs: bool, dtype):
    """Return cosines and sines [b, S, columns] in one of the spellings of exporters."""
    half = columns // 2
    kind = draw(st.sampled_from(["chain", "chain", "constant", "gather"]))
    angles = np.linspace(-3, 3, shape[0] * shape[1] * half).reshape(*shape, half)
    if kind == "chain":
        f = p.input(angles.astype(dtype))
        if draw(st.booleans()):
            f = p.add("Mul", f, p.weight(np.array(0.5, dtype=dtype)))
        both = doubled(draw, p, f, pairs=pairs)
        tables = [p.add("Cos", both), p.add("Sin", both)]
        if draw(st.booleans()):
            scale = p.weight(np.array([1.25], dtype=dtype))
            tables = [p.add("Mul", scale, table) for table in tables]
        return tables
    spread = (lambda a: np.repeat(a, 2, -1)) if pairs else (lambda a: np.concatenate([a, a], -1))
    arrays = [spread(np.cos(angles)).astype(dtype), spread(np.sin(angles)).astype(dtype)]
    if kind == "constant":
        return [p.weight(array) for array in arrays]
    ids = p.input(np.arange(shape[0] * shape[1]).reshape(shape).astype(np.int64))
    return [p.add("Gather", p.weight(a.reshape(-1, columns)), ids, axis=0) for a in arrays]


def doubled(draw, p: Pattern, f: str, *, pairs: bool) -> str:
    if not pairs:
        if draw(st.booleans()):
            return p.add("Concat", f, f, axis=-1)
        return p.add("Tile", f, p.weight(np.array([1, 1, 2])))
    thin = p.add("Unsqueeze", f, p.weight(np.array([3])))
    if draw(st.booleans()):
        wide = p.add("Concat", thin, thin, axis=3)
    else:
        wide = p.add("Expand", thin, p.weight(np.array([1, 1, 1, 2])))
    return p.add("Reshape", wide, p.weight(np.array([0, 0, -1])))


def turned(draw, p: Pattern, x: str, shape: tuple[int, ...], *, pairs: bool) -> str:
    columns, rank = shape[-1], len(shape)
    axis = p.weight(np.array([draw(st.sampled_from([-1, rank - 1]))]))
    one, two = p.weight(np.array([1])), p.weight(np.array([2]))
    zero, half = p.weight(np.array([0])), p.weight(np.array([columns // 2]))
    end = p.weight(np.array([2**62]))
    if pairs:
        first, second = (
            p.add("Slice", x, zero, end, axis, two),
            p.add("Slice", x, one, end, axis, two),
        )
    elif draw(st.booleans()):
        first, second = p.add("Split", x, outputs=2, axis=-1, num_outputs=2)
    else:
        first, second = p.add("Slice", x, zero, half, axis), p.add("Slice", x, half, end, axis)
    negative = p.add("Neg", second)
    if not pairs:
        return p.add("Concat", negative, first, axis=-1)
    last = p.weight(np.array([-1]))
    stack = p.add(
        "Concat", p.add("Unsqueeze", negative, last), p.add("Unsqueeze", first, last), axis=-1
    )
    return p.add("Reshape", stack, p.weight(np.array([0] * (rank - 1) + [columns])))


@st.composite
def rotations(draw):
    p = Pattern()
    dtype = draw(st.sampled_from([np.float32, np.float32, np.float16]))
    batch, heads, positions, half = (draw(st.integers(1, 3)) for _ in range(4))
    pairs = draw(st.booleans())
    layout = draw(st.sampled_from(["heads first", "heads first", "heads last", "rows"]))
    shape, unit = {
        "heads first": ((batch, heads, positions, 2 * half), 1),
        "heads last": ((batch, positions, heads, 2 * half), 2),
        "rows": ((batch, positions, 2 * half), None),
    }[layout]
    table_batch = draw(st.sampled_from([1, batch]))
    tables = draw_tables(draw, p, (table_batch, positions), 2 * half, pairs=pairs, dtype=dtype)
    if unit is not None:
        axis = p.weight(np.array([unit]))
        tables = [p.add("Unsqueeze", table, axis) for table in tables]
    size = int(np.prod(shape))
    x = p.input(np.linspace(-2, 2, size).reshape(shape).astype(dtype))
    quarter = turned(draw, p, x, shape, pairs=pairs)
    straight, across = p.add("Mul", x, tables[0]), p.add("Mul", quarter, tables[1])
    terms = [straight, across]
    p.add("Add", *(terms if draw(st.booleans()) else terms[::-1]))
    return p


@pytest.mark.parametrize("target", ["generic", "ort-cpu", "ort-cuda"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_outputs_are_kept(target, data):
    surrounded = surround(data.draw, data.draw(rotations()), opset=20)

    def rewrite(model: ir.Model) -> None:
        for _ in range(3):
            FUSE_ROTARY.run(model, Context(target))
        assert not FUSE_ROTARY.run(model, Context(target)).changed

    check_kept(surrounded, rewrite)


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_fires_where_shapes_are_known(target):
    fired = []

    @settings(deadline=None, max_examples=60)
    @given(pattern=rotations())
    def count(pattern):
        weights = [onnx.numpy_helper.from_array(a, name) for name, a in pattern.weights.items()]
        graph = onnx.helper.make_graph(
            pattern.nodes,
            "plain",
            [
                onnx.helper.make_tensor_value_info(
                    name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape
                )
                for name, a in pattern.inputs.items()
            ],
            [onnx.ValueInfoProto(name=pattern.nodes[-1].output[0])],
            weights,
        )
        opsets = [onnx.helper.make_opsetid("", 20)]
        found = ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))
        stats = apply_rules(found, "rotary", rotary_embedding.RULES, target=target)
        fired.append(stats.changed)

    count()
    assert sum(fired) > 0.9 * len(fired)


def test_rules_have_unlike_names_within_a_target():
    for target in ("generic", "ort-cpu"):
        names = [rule.name for rule in FUSE_ROTARY.rules if target in rule.targets]
        assert len(names) == len(set(names))
