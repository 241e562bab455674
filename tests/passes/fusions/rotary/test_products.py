"""Rotations written product by product."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, surround, times_each_fires

from leptonc.passes.fusions.rotary.fuse import FUSE_ROTARY
from leptonc.passes.pipeline import Context

HALVES = """<ir_version: 10, opset_import: ["" : 23]>
g (float[2,3,S,4] x, float[2,1,S,2] c, float[2,1,S,2] s) => (float[B,N,S,D] y)
<int64[2] twos = {2, 2}> {
   a, b = Split<axis: int = -1>(x, twos)
   ac = Mul(a, c)
   bs = Mul(b, s)
   bc = Mul(b, c)
   as = Mul(s, a)
   real = Sub(ac, bs)
   imaginary = Add(as, bc)
   y = Concat<axis: int = -1>(real, imaginary)
}"""

PAIRS = (
    HALVES.replace("twos = {2, 2}", "zero = {0}, int64[1] one = {1}, int64[1] two = {2}, "
                   "int64[1] last = {-1}, int64[1] end = {9}, int64[4] shape = {2, 3, -1, 4}")
    .replace("int64[2] zero", "int64[1] zero")
    .replace("a, b = Split<axis: int = -1>(x, twos)",
             "a = Slice(x, zero, end, last, two)\n   b = Slice(x, one, end, last, two)")
    .replace("y = Concat<axis: int = -1>(real, imaginary)",
             "r = Unsqueeze(real, last)\n   i = Unsqueeze(imaginary, last)\n"
             "   stack = Concat<axis: int = -1>(r, i)\n   y = Reshape(stack, shape)")
)  # fmt: skip


def rotary(model: ir.Model) -> ir.Node | None:
    found = [node for node in model.graph if node.op_type == "RotaryEmbedding"]
    return found[0] if found else None


@pytest.mark.parametrize(("text", "interleaved"), [(HALVES, 0), (PAIRS, 1)])
def test_fires(parse, text, interleaved):
    model = parse(text)
    FUSE_ROTARY.run(model)
    node = rotary(model)
    assert node is not None
    assert node.attributes.get_int("interleaved", 0) == interleaved
    assert [n.op_type for n in model.graph] == ["Squeeze", "Squeeze", "RotaryEmbedding"]


CHANGES = [
    ("Sub(ac, bs)", "Sub(bs, ac)"),
    ("Sub(ac, bs)", "Add(ac, bs)"),
    ("Sub(ac, bs)", "Sub(ac, b)"),
    ("Add(as, bc)", "Sub(as, bc)"),
    ("bs = Mul(b, s)", "bs = Mul(b, c)"),
    ("bc = Mul(b, c)", "bc = Mul(a, c)"),
    ("as = Mul(s, a)", "as = Mul(s, b)"),
    ("Mul(a, c)", "Mul(b, c)"),
    ("(real, imaginary)", "(imaginary, real)"),
    ("(real, imaginary)", "(real, imaginary, real)"),
    ("(r, i)", "(i, r)"),
    ("(r, i)", "(r, i, r)"),
    ("axis: int = -1>(r, i)", "axis: int = 3>(r, i)"),
    ("r = Unsqueeze(real, last)", "r = Identity(columns)"),
    ("int64[1] one = {1}", "int64[1] one = {0}"),
    ("twos = {2, 2}", "twos = {1, 3}"),
    ("shape = {2, 3, -1, 4}", "shape = {3, 2, -1, 4}"),
    ("axis: int = -1>(real", "axis: int = 2>(real"),
]


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [(text, old, new) for text in (HALVES, PAIRS) for old, new in CHANGES if old in text],
)
def test_does_not_fire(parse, text, old, new):
    text = text.replace("float[2,1,S,2] s)", "float[2,1,S,2] s, float[2,3,S,2,1] columns)")
    stats = FUSE_ROTARY.run(parse(text.replace(old, new)))
    assert not stats.changed
    assert not stats.refused


TABLES = "the tables are not known to have one row for each position"


@pytest.mark.parametrize("text", [HALVES, PAIRS])
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("2,1,S,2] s", "2,3,S,2] s", TABLES),
        ("2,1,S,2] s", "1,S,2] s", TABLES),
        ("2,1,S,2] c", "2,1,S,1] c", TABLES),
        ("D] y)", "D] y, float[B,N,S,K] real)", "'real' is an output of the graph"),
        ("float", "double", "the operator is not made for DOUBLE"),
    ],
)
def test_near_misses(parse, text, old, new, reason):
    stats = FUSE_ROTARY.run(parse(text.replace(old, new)))
    assert not stats.changed
    assert [refusal.reason for refusal in stats.refused] == [reason]


@st.composite
def products(draw):
    p = Pattern()
    batch, heads, positions, half = (draw(st.integers(1, 3)) for _ in range(4))
    pairs = draw(st.booleans())
    shape = (batch, heads, positions, 2 * half)
    x = p.input(np.linspace(-2, 2, int(np.prod(shape))).reshape(shape).astype(np.float32))
    rows = (draw(st.sampled_from([1, batch])), 1, positions, half)
    angles = np.linspace(0, 5, int(np.prod(rows))).reshape(rows).astype(np.float32)
    c, s = p.input(np.cos(angles)), p.input(np.sin(angles))
    if pairs:
        last, two = p.weight(np.array([-1])), p.weight(np.array([2]))
        zero, one, end = (p.weight(np.array([n])) for n in (0, 1, 2**62))
        a, b = (p.add("Slice", x, start, end, last, two) for start in (zero, one))
    else:
        a, b = p.add("Split", x, outputs=2, axis=-1, num_outputs=2)
    real = p.add("Sub", p.add("Mul", a, c), p.add("Mul", b, s))
    imaginary = p.add("Add", p.add("Mul", b, c), p.add("Mul", a, s))
    if not pairs:
        p.add("Concat", real, imaginary, axis=-1)
        return p
    thin = [p.add("Unsqueeze", value, last) for value in (real, imaginary)]
    stack = p.add("Concat", *thin, axis=-1)
    p.add("Reshape", stack, p.weight(np.array([0, 0, 0, 2 * half])))
    return p


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_outputs_are_kept(target, data):
    surrounded = surround(data.draw, data.draw(products()), opset=20)

    def rewrite(model: ir.Model) -> None:
        FUSE_ROTARY.run(model, Context(target))
        assert not FUSE_ROTARY.run(model, Context(target)).changed

    check_kept(surrounded, rewrite)


@pytest.mark.parametrize(("target", "name"), [("generic", "rotary"), ("ort-cpu", "rotary-shared")])
def test_it_fires_on_what_is_drawn(target, name):
    assert (
        times_each_fires(lambda draw: draw(products()), FUSE_ROTARY.rules, target=target)[name]
        >= 10
    )
