"""Rotary operators of the first columns only, and before the heads are split off."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, surround, times_each_fires

from leptonc.passes.fusions.rotary.fuse import FUSE_ROTARY
from leptonc.passes.pipeline import Context

HEAD = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>\n'
TABLES = "float[1,S,1] c, float[1,S,1] s"

PARTIAL = (
    HEAD
    + f"""g (float[1,2,S,6] x, {TABLES}) => (float[B,N,S,D] y)
<int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] last = {{-1}}, int64[1] end = {{9}}> {{
   front = Slice(x, zero, two, last)
   tail = Slice(x, two, end, last)
   turned = RotaryEmbedding<interleaved: int = 1>(front, c, s)
   y = Concat<axis: int = -1>(turned, tail)
}}"""
)

ROWS = (
    HEAD
    + f"""g (float[1,S,2,6] x, {TABLES}) => (float[B,S,N,D] y)
<int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] last = {{-1}}, int64[1] end = {{9}},
 int64[3] flat = {{0, 0, 4}}, int64[4] apart = {{0, 0, 2, 2}}> {{
   front = Slice(x, zero, two, last)
   tail = Slice(x, two, end, last)
   rows = Reshape(front, flat)
   rotated = RotaryEmbedding<num_heads: int = 2>(rows, c, s)
   turned = Reshape(rotated, apart)
   y = Concat<axis: int = -1>(turned, tail)
}}"""
)

HEADS = (
    HEAD
    + f"""g (float[1,S,6] x, {TABLES}) => (float[B,N,S,D] y)
<int64[4] apart = {{0, 0, 3, 2}}> {{
   heads = Reshape(x, apart)
   swapped = Transpose<perm: ints = [0, 2, 1, 3]>(heads)
   y = RotaryEmbedding(swapped, c, s)
}}"""
)


def test_partial(parse, assert_graph):
    model = parse(PARTIAL)
    FUSE_ROTARY.run(model)
    assert_graph(
        model,
        HEAD
        + f"""g (float[1,2,S,6] x, {TABLES}) => (float[B,N,S,D] y) {{
   y = RotaryEmbedding<interleaved: int = 1, rotary_embedding_dim: int = 2>(x, c, s)
}}""",
    )


def test_partial_of_the_engine_names_the_heads(parse):
    text = PARTIAL.replace("RotaryEmbedding<", "com.microsoft.RotaryEmbedding<")
    text = text.replace("(front, c, s)", "(front, zero, c, s)").replace("[1,S,1]", "[S,1]")
    model = parse(text)
    FUSE_ROTARY.run(model, Context("ort-cpu"))
    (node,) = model.graph
    assert node.attributes.get_int("num_heads") == 2
    assert node.attributes.get_int("rotary_embedding_dim") == 2
    unknown = parse(text.replace("float[1,2,S,6]", "float[1,N,S,6]"))
    stats = FUSE_ROTARY.run(unknown, Context("ort-cpu"))
    assert [r.reason for r in stats.refused] == ["the number of heads of 'x' is not known"]


def test_partial_rows(parse, assert_graph):
    model = parse(ROWS)
    FUSE_ROTARY.run(model)
    assert_graph(
        model,
        HEAD
        + f"""g (float[1,S,2,6] x, {TABLES}) => (float[B,S,N,D] y)
<int64[3] shape = {{0, 0, 12}}, int64[4] shape_1 = {{0, 0, 2, 6}}> {{
   y_rotary_partial = Reshape(x, shape)
   y_rotary_partial_1 = RotaryEmbedding<num_heads: int = 2, rotary_embedding_dim: int = 2>
       (y_rotary_partial, c, s)
   y = Reshape(y_rotary_partial_1, shape_1)
}}""",
    )


@pytest.mark.parametrize(
    ("text", "old", "new", "reason"),
    [
        (PARTIAL, "D] y)", "D] y, float[B,N,S,D] turned)", "'turned' is an output of the graph"),
        (ROWS, "D] y)", "D] y, float[B,S,D] rotated)", "'rotated' is an output of the graph"),
        (PARTIAL, "interleaved: int = 1", "rotary_embedding_dim: int = 2", None),
        (PARTIAL, "interleaved: int = 1", "rotary_embedding_dim: int = 4",
         "the slice itself is rotated in part"),
        (ROWS, "num_heads: int = 2", "num_heads: int = 1",
         "the heads of 'x' are not those that are rotated"),
        (ROWS, "float[1,S,2,6]", "float[1,S,N,6]",
         "the heads of 'x' are not those that are rotated"),
        (ROWS, "flat = {0, 0, 4}, int64[4] apart = {0, 0, 2, 2}",
         "flat = {1, -1, 8}, int64[4] apart = {1, -1, 2, 2}",
         "'rows' is not the heads of each position side by side"),
        (ROWS, "flat = {0, 0, 4}", "flat = {1, -1, 4}", None),
        (ROWS, "apart = {0, 0, 2, 2}", "apart = {1, 2, -1, 2}", "'turned' has other heads than the slice"),
    ],
)  # fmt: skip
def test_partial_near_misses(parse, text, old, new, reason):
    model = parse(text.replace(old, new, 1))
    stats = FUSE_ROTARY.run(model)
    if reason is None:
        assert stats.changed
        return
    assert not stats.changed
    assert [refusal.reason for refusal in stats.refused] == [reason]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("", "", None),
        ("{0, 0, 2, 2}", "{1, -1, 2, 2}", "'turned' has other heads than the slice"),
        ("(rotated", "<allowzero: int = 1>(rotated", "'turned' has other heads than the slice"),
    ],
)
def test_partial_rows_of_the_engine(parse, old, new, reason):
    """Its own operator, behind which the sizes may not be known."""
    text = ROWS.replace("RotaryEmbedding<", "com.microsoft.RotaryEmbedding<")
    text = text.replace("(rows, c, s)", "(rows, zero, c, s)").replace("[1,S,1]", "[S,1]")
    text = text.replace("float[1,S,2,6]", "float[B,S,2,6]").replace(old, new)
    stats = FUSE_ROTARY.run(parse(text), Context("ort-cpu"))
    assert stats.changed == (reason is None)
    assert [refusal.reason for refusal in stats.refused] == ([reason] if reason else [])


def test_the_standard_operator_counts_the_heads_itself(parse):
    model = parse(PARTIAL.replace("float[1,2,S,6]", "float[1,N,S,6]"))
    assert FUSE_ROTARY.run(model).counts == (("rotary-partial", 1),)


def test_every_second_column_with_nothing_behind_stays(parse):
    text = PARTIAL.replace("zero, two, last", "zero, end, last, two")
    text = text.replace("x, two, end", "x, end, end")
    assert not FUSE_ROTARY.run(parse(text)).changed


def test_partial_of_some_columns(parse):
    text = PARTIAL.replace("[1,2,S,6]", "[1,2,S,16]").replace("end = {9}", "end = {7}")
    model = parse(text.replace("zero = {0}", "zero = {1}").replace("two = {2}", "two = {3}"))
    FUSE_ROTARY.run(model)
    piece, rotary = model.graph
    assert (piece.op_type, rotary.op_type) == ("Slice", "RotaryEmbedding")
    edges = [value.const_value.numpy().tolist() for value in piece.inputs[1:]]
    assert edges == [[1], [7], [-1]]
    assert rotary.attributes.get_int("rotary_embedding_dim") == 2


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (PARTIAL, "tail = Slice(x, two", "tail = Slice(x, zero"),
        (PARTIAL, "(turned, tail)", "(tail, turned)"),
        (PARTIAL, "axis: int = -1", "axis: int = 2"),
        (PARTIAL, "front = Slice(x, zero, two", "front = Slice(x, two, end"),
        (PARTIAL, "tail = Slice(x,", "tail = Slice(z,"),
        (PARTIAL, "interleaved: int = 1", "scale: float = 0.5"),
        (PARTIAL, "(turned, tail)", "(turned, tail, tail)"),
        (PARTIAL, "(turned, tail)", "(tail, tail)"),
        (PARTIAL, "[1,2,S,6]", "[2,S,6]"),
        (PARTIAL, "turned = RotaryEmbedding<interleaved: int = 1>(front",
         "same = Reshape(front, heads)\n turned = RotaryEmbedding<interleaved: int = 1>(same"),
        (ROWS, "rows = Reshape(front, flat)", "rows = Identity(front)"),
        (ROWS, "rotated = RotaryEmbedding<num_heads: int = 2>(rows, c, s)", "rotated = Neg(rows)"),
    ],
)  # fmt: skip
def test_other_partial_forms(parse, text, old, new):
    text = text.replace("x,", "x, float[1,2,S,6] z,", 1) if "(z," in new else text
    text = text.replace("two = {2}", "two = {2}, int64[4] heads = {1, 2, -1, 2}")
    stats = FUSE_ROTARY.run(parse(text.replace(old, new, 1)))
    assert not stats.changed
    assert not stats.refused


def test_no_columns_behind(parse, assert_graph):
    text = PARTIAL.replace("two = {2}", "two = {6}")
    model = parse(text.replace("<interleaved: int = 1>", ""))
    FUSE_ROTARY.run(model)
    expected = f"g (float[1,2,S,6] x, {TABLES}) => (float[B,N,S,D] y) {{"
    assert_graph(model, HEAD + expected + " y = RotaryEmbedding(x, c, s) }")


@pytest.mark.parametrize("target", ["generic", "ort-cpu", "ort-cuda"])
def test_before_the_heads(parse, assert_graph, target):
    model = parse(HEADS)
    FUSE_ROTARY.run(model, Context(target))
    assert_graph(
        model,
        HEAD
        + f"""g (float[1,S,6] x, {TABLES}) => (float[B,N,S,D] y)
<int64[4] shape = {{0, 0, 3, 2}}> {{
   y_rotary_before_heads = RotaryEmbedding<num_heads: int = 3>(x, c, s)
   y_rotary_before_heads_1 = Reshape(y_rotary_before_heads, shape)
   y = Transpose<perm: ints = [0, 2, 1, 3]>(y_rotary_before_heads_1)
}}""",
    )


def test_a_normalisation_between_costs_a_reshape(parse):
    text = HEADS.replace(
        "heads = Reshape(x, apart)", "plain = Reshape(x, apart)\n heads = Neg(plain)"
    )
    model = parse(text)
    assert not FUSE_ROTARY.run(model, Context("generic")).changed
    FUSE_ROTARY.run(model, Context("ort-cpu"))
    assert [node.op_type for node in model.graph] == [
        *("Reshape", "Neg", "Reshape", "RotaryEmbedding", "Reshape", "Transpose")
    ]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("D] y)", "D] y, float[B,N,S,D] swapped)", "'swapped' is an output of the graph"),
        ("[0, 2, 1, 3]", "[0, 2, 3, 1]", None),
        ("apart = {0, 0, 3, 2}", "apart = {1, 3, -1, 2}", None),
        ("<perm: ints = [0, 2, 1, 3]>", "", None),
        ("heads = Reshape(x, apart)", "heads = test.Unknown(x)", None),
        # Each row holds two positions.
        ("[1,S,6]", "[1,S,12]", None),
    ],
)
def test_stays_behind_the_heads(parse, old, new, reason):
    text = HEADS.replace(old, new).replace("float[1,S,1] c", "float[1,P,1] c")
    if "[1,S,12]" in text:
        text = text.replace("{0, 0, 3, 2}", "{1, -1, 3, 2}")
    model = parse(text.replace('"com', '"test" : 1, "com'))
    stats = FUSE_ROTARY.run(model)
    assert not stats.changed
    assert [refusal.reason for refusal in stats.refused] == ([reason] if reason else [])


def test_heads_of_unknown_width_stay_apart(parse):
    text = HEADS.replace("float[1,S,6] x", "float[1,S,3,D] x").replace(
        "heads = Reshape(x, apart)", "heads = Neg(x)"
    )
    for target in ("generic", "ort-cpu"):
        stats = FUSE_ROTARY.run(parse(text), Context(target))
        assert not stats.changed
        assert not stats.refused


def test_rows_that_come_back_as_others_stay(parse):
    text = (
        HEADS.replace("swapped = Transpose<perm: ints = [0, 2, 1, 3]>(heads)", "swapped = Reshape(heads, flat)")
        .replace("int64[4] apart = {0, 0, 3, 2}", "int64[4] apart = {1, -1, 3, 2}, int64[3] flat = {0, 0, 6}")
        .replace("[1,S,6]", "[1,S,12]")
        .replace("RotaryEmbedding(", "RotaryEmbedding<num_heads: int = 3>(")
        .replace("float[1,S,1] c, float[1,S,1] s", "float[1,P,1] c, float[1,P,1] s")
    )  # fmt: skip
    assert not FUSE_ROTARY.run(parse(text)).changed


def test_rows_that_went_apart_and_together(parse):
    text = (
        HEADS.replace(
            "swapped = Transpose<perm: ints = [0, 2, 1, 3]>(heads)",
            "swapped = Reshape(heads, flat)",
        )
        .replace("apart =", "flat = {0, 0, 6}, int64[4] apart =")
        .replace("int64[4] flat", "int64[3] flat")
    )
    text = text.replace("RotaryEmbedding(", "RotaryEmbedding<num_heads: int = 3>(")  # fmt: skip
    model = parse(text)
    FUSE_ROTARY.run(model)
    (node,) = model.graph
    assert node.inputs[0] is model.graph.inputs[0]


@st.composite
def operators(draw):
    p = Pattern()
    batch, heads, positions, half, rest = (draw(st.integers(1, 3)) for _ in range(5))
    width = 2 * half + 2 * draw(st.sampled_from([0, rest]))
    own = draw(st.booleans())
    angles = np.linspace(0, 5, batch * positions * half).reshape(batch, positions, half)
    tables = [p.input(table.astype(np.float32)) for table in (np.cos(angles), np.sin(angles))]
    domain = ""
    if own:
        domain = "com.microsoft"
        tables = [
            p.weight(np.cos(angles[0]).astype(np.float32)),
            p.weight(np.sin(angles[0]).astype(np.float32)),
        ]
        tables.insert(0, p.weight(np.array([0])))
    size = batch * positions * heads * width
    rows = np.linspace(-2, 2, size).reshape(batch, positions, heads * width).astype(np.float32)
    x = p.add("Reshape", p.input(rows), p.weight(np.array([0, 0, heads, width])))
    if draw(st.booleans()):
        x = p.add("Neg", x)
    swapped = draw(st.booleans())
    if swapped:
        x = p.add("Transpose", x, perm=[0, 2, 1, 3])
    front, tail = x, None
    if width > 2 * half:
        last, zero = p.weight(np.array([-1])), p.weight(np.array([0]))
        middle, end = p.weight(np.array([2 * half])), p.weight(np.array([2**62]))
        front, tail = p.add("Slice", x, zero, middle, last), p.add("Slice", x, middle, end, last)
    more = {"interleaved": 1} if draw(st.booleans()) else {}
    if not swapped:
        front = p.add("Reshape", front, p.weight(np.array([0, 0, heads * 2 * half])))
        more["num_heads"] = heads
    turned = p.add("RotaryEmbedding", front, *tables, domain=domain, **more)
    if not swapped:
        turned = p.add("Reshape", turned, p.weight(np.array([0, 0, heads, 2 * half])))
    if tail is not None:
        p.add("Concat", turned, tail, axis=-1)
    return p


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_outputs_are_kept(target, data):
    surrounded = surround(data.draw, data.draw(operators()), opset=23)

    def rewrite(model: ir.Model) -> None:
        for _ in range(3):
            FUSE_ROTARY.run(model, Context(target))
        assert not FUSE_ROTARY.run(model, Context(target)).changed

    check_kept(surrounded, rewrite)


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_each_rule_fires_on_what_is_drawn(target):
    fired = times_each_fires(
        lambda draw: draw(operators()), FUSE_ROTARY.rules, target=target, opset=23
    )
    names = ("rotary-partial", "rotary-before-heads", "rotary-rows")
    assert min(fired[name] for name in names) >= 1
