from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from leptonc.passes.clean.clean import Clean
from leptonc.passes.pipeline import run_passes

FIRES = {
    "dead nodes, back to front": (
        """g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
          y = Neg(x)  a = Abs(x)  b = Mul(a, w)
        }""",
        "g (float[2] x) => (float[2] y) { y = Neg(x) }",
    ),
    "identity between nodes": (
        """g (float[2] x) => (float[2] y) { a = Neg(x)  b = Identity(a)  y = Abs(b) }""",
        """g (float[2] x) => (float[2] y) { a = Neg(x)  y = Abs(a) }""",
    ),
    "identity of an input": (
        """g (float[2] x) => (float[2] y) { b = Identity(x)  y = Abs(b) }""",
        """g (float[2] x) => (float[2] y) { y = Abs(x) }""",
    ),
    "identity at an output takes the name over": (
        """g (float[2] x) => (float[2] y, float[2] z) { a = Neg(x)  y = Identity(a)  z = Abs(a) }""",
        """g (float[2] x) => (float[2] y, float[2] z) { y = Neg(x)  z = Abs(y) }""",
    ),
    "identity read inside a subgraph": (
        """g (float[2] x, bool c) => (float[2] y) {
          a = Identity(x)
          y = If(c) <then_branch = t () => (float[2] p) { p = Neg(a) },
                     else_branch = e () => (float[2] q) { q = Abs(a) }>
        }""",
        """g (float[2] x, bool c) => (float[2] y) {
          y = If(c) <then_branch = t () => (float[2] p) { p = Neg(x) },
                     else_branch = e () => (float[2] q) { q = Abs(x) }>
        }""",
    ),
    "identity inside a subgraph": (
        """g (float[2] x, bool c) => (float[2] y) {
          y = If(c) <then_branch = t () => (float[2] p) { a = Neg(x)  p = Identity(a) },
                     else_branch = e () => (float[2] q) { b = Identity(x)  q = Abs(b) }>
        }""",
        """g (float[2] x, bool c) => (float[2] y) {
          y = If(c) <then_branch = t () => (float[2] p) { p = Neg(x) },
                     else_branch = e () => (float[2] q) { q = Abs(x) }>
        }""",
    ),
    "cast to the same type": (
        """g (float[n] x) => (float[n] y) { a = Cast<to = 1>(x)  y = Neg(a) }""",
        """g (float[n] x) => (float[n] y) { y = Neg(x) }""",
    ),
    "cast of a computed value whose type is inferred": (
        """g (float[n] x) => (float[n] y) { a = Neg(x)  b = Cast<to = 1>(a)  y = Neg(b) }""",
        """g (float[n] x) => (float[n] y) { a = Neg(x)  y = Neg(a) }""",
    ),
    "cast like itself": (
        """g (float[n] x, float[m] l) => (float[n] y) { a = CastLike(x, l)  y = Neg(a) }""",
        """g (float[n] x, float[m] l) => (float[n] y) { y = Neg(x) }""",
    ),
    "cast to a wider integer and back": (
        """g (int32[n] x) => (int32[n] y) { a = Cast<to = 7>(x)  b = Cast<to = 6>(a)  y = Neg(b) }""",
        """g (int32[n] x) => (int32[n] y) { y = Neg(x) }""",
    ),
    "reshape to the same known shape": (
        """g (float[2, 3] x) => (float[2, 3] y) <int64[2] s = {2, 3}> {
          a = Reshape(x, s)  y = Neg(a)
        }""",
        """g (float[2, 3] x) => (float[2, 3] y) { y = Neg(x) }""",
    ),
    "reshape with one unknown dimension inferred": (
        """g (float[n, 3] x) => (float[n, 3] y) <int64[2] s = {-1, 3}> {
          a = Reshape(x, s)  y = Neg(a)
        }""",
        """g (float[n, 3] x) => (float[n, 3] y) { y = Neg(x) }""",
    ),
    "reshape with unknown dimensions copied": (
        """g (float[n, m, 3] x) => (float[n, m, 3] y) <int64[3] s = {0, 0, 3}> {
          a = Reshape(x, s)  y = Neg(a)
        }""",
        """g (float[n, m, 3] x) => (float[n, m, 3] y) { y = Neg(x) }""",
    ),
    "transpose that keeps the order": (
        """g (float[n, m] x) => (float[n, m] y) { a = Transpose<perm = [0, 1]>(x)  y = Neg(a) }""",
        """g (float[n, m] x) => (float[n, m] y) { y = Neg(x) }""",
    ),
    "transpose of a vector": (
        """g (float[n] x) => (float[n] y) { a = Transpose(x)  y = Neg(a) }""",
        """g (float[n] x) => (float[n] y) { y = Neg(x) }""",
    ),
    "inverse transposes": (
        """g (float[a, b, c] x) => (float[a, b, c] y) {
          s = Transpose<perm = [1, 2, 0]>(x)  t = Transpose<perm = [2, 0, 1]>(s)  y = Neg(t)
        }""",
        """g (float[a, b, c] x) => (float[a, b, c] y) { y = Neg(x) }""",
    ),
    "two transposes are one": (
        """g (float[a, b, c] x) => (float[c, a, b] y) {
          s = Transpose<perm = [1, 2, 0]>(x)  y = Transpose<perm = [1, 2, 0]>(s)
        }""",
        """g (float[a, b, c] x) => (float[c, a, b] y) { y = Transpose<perm = [2, 0, 1]>(x) }""",
    ),
    "two reversing transposes of known rank": (
        """g (float[a, b] x) => (float[a, b] y) { s = Transpose(x)  t = Transpose(s)  y = Neg(t) }""",
        """g (float[a, b] x) => (float[a, b] y) { y = Neg(x) }""",
    ),
    "two reshapes are one": (
        """g (float[n, 4] x) => (float[m, 2] y) <int64[1] s = {-1}, int64[2] t = {-1, 2}> {
          a = Reshape(x, s)  y = Reshape(a, t)
        }""",
        """g (float[n, 4] x) => (float[m, 2] y) <int64[2] t = {-1, 2}> { y = Reshape(x, t) }""",
    ),
    "squeeze undoes unsqueeze": (
        """g (float[n] x) => (float[n] y) <int64[1] s = {1}> {
          a = Unsqueeze(x, s)  b = Squeeze(a, s)  y = Neg(b)
        }""",
        """g (float[n] x) => (float[n] y) { y = Neg(x) }""",
    ),
    "squeeze where no dimension is one": (
        """g (float[2, 3] x) => (float[2, 3] y) { a = Squeeze(x)  y = Neg(a) }""",
        """g (float[2, 3] x) => (float[2, 3] y) { y = Neg(x) }""",
    ),
    "flatten of a matrix": (
        """g (float[n, m] x) => (float[n, m] y) { a = Flatten(x)  y = Neg(a) }""",
        """g (float[n, m] x) => (float[n, m] y) { y = Neg(x) }""",
    ),
    "expand by ones": (
        """g (float[n, m] x) => (float[n, m] y) <int64[2] s = {1, 1}> {
          a = Expand(x, s)  y = Neg(a)
        }""",
        """g (float[n, m] x) => (float[n, m] y) { y = Neg(x) }""",
    ),
    "tile once": (
        """g (float[n, m] x) => (float[n, m] y) <int64[2] s = {1, 1}> { a = Tile(x, s)  y = Neg(a) }""",
        """g (float[n, m] x) => (float[n, m] y) { y = Neg(x) }""",
    ),
    "pad by nothing": (
        """g (float[n] x) => (float[n] y) <int64[2] p = {0, 0}> { a = Pad(x, p)  y = Neg(a) }""",
        """g (float[n] x) => (float[n] y) { y = Neg(x) }""",
    ),
    "slice of all": (
        """g (float[n] x) => (float[n] y) <int64[1] s = {0}, int64[1] e = {9223372036854775807}> {
          a = Slice(x, s, e)  y = Neg(a)
        }""",
        """g (float[n] x) => (float[n] y) { y = Neg(x) }""",
    ),
    "concat and sum of one": (
        """g (float[n] x) => (float[n] y) { a = Concat<axis = 0>(x)  b = Sum(a)  y = Neg(b) }""",
        """g (float[n] x) => (float[n] y) { y = Neg(x) }""",
    ),
    "dropout that is not asked to train": (
        """g (float[n] x) => (float[n] y) <float r = {0.5}> { a = Dropout(x, r)  y = Neg(a) }""",
        """g (float[n] x) => (float[n] y) { y = Neg(x) }""",
    ),
    "dropout that is told not to train": (
        """g (float[n] x) => (float[n] y) <float r = {0.5}, bool t = {0}> {
          a = Dropout(x, r, t)  y = Neg(a)
        }""",
        """g (float[n] x) => (float[n] y) { y = Neg(x) }""",
    ),
    "repeated expressions": (
        """g (float[n] x) => (float[n] y) { a = Neg(x)  b = Neg(x)  c = Abs(a)  d = Abs(b)
          y = Add(c, d) }""",
        """g (float[n] x) => (float[n] y) { a = Neg(x)  c = Abs(a)  y = Add(c, c) }""",
    ),
    "repeated expressions with equal attributes": (
        """g (float[n, m] x) => (float[m, n] y) {
          a = Transpose<perm = [1, 0]>(x)  b = Transpose<perm = [1, 0]>(x)  y = Add(a, b)
        }""",
        """g (float[n, m] x) => (float[m, n] y) { a = Transpose<perm = [1, 0]>(x)  y = Add(a, a) }""",
    ),
    "an outer expression serves a subgraph": (
        """g (float[2] x, bool c) => (float[2] y) {
          a = Neg(x)
          b = If(c) <then_branch = t () => (float[2] p) { d = Neg(x)  p = Abs(d) },
                     else_branch = e () => (float[2] q) { q = Abs(a) }>
          y = Add(a, b)
        }""",
        """g (float[2] x, bool c) => (float[2] y) {
          a = Neg(x)
          b = If(c) <then_branch = t () => (float[2] p) { p = Abs(a) },
                     else_branch = e () => (float[2] q) { q = Abs(a) }>
          y = Add(a, b)
        }""",
    ),
    "a name that shadows is replaced": (
        """g (float[2] x, bool c) => (float[2] y) {
          z = If(c) <then_branch = t () => (float[2] p) { a = Neg(x)  p = Abs(a) },
                     else_branch = e () => (float[2] q) { q = Abs(x) }>
          a = Exp(x)
          y = Add(a, z)
        }""",
        """g (float[2] x, bool c) => (float[2] y) {
          z = If(c) <then_branch = t () => (float[2] p) { a_inner = Neg(x)  p = Abs(a_inner) },
                     else_branch = e () => (float[2] q) { q = Abs(x) }>
          a = Exp(x)
          y = Add(a, z)
        }""",
    ),
    "a range over vectors of one element": (
        """g (int64[1] n) => (int64[m] y) <int64 s = {0}, int64 d = {1}> { y = Range(s, n, d) }""",
        """g (int64[1] n) => (int64[m] y) <int64 s = {0}, int64 d = {1}> {
          n_scalar = Squeeze(n)  y = Range(s, n_scalar, d)
        }""",
    ),
    "inside a function": (
        """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 20]>
        f (a) => (b) { c = Identity(a)  d = Neg(c)  e = Neg(a)  u = Exp(a)  b = Add(d, e) }""",
        """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 20]>
        f (a) => (b) { d = Neg(a)  b = Add(d, d) }""",
    ),
    "opset 7, with attributes where inputs are now": (
        """<ir_version: 3, opset_import: ["" : 7]>
        g (float[1, 3] x) => (float[3] y) {
          a = Unsqueeze<axes = [0]>(x)  b = Squeeze<axes = [0]>(a)
          p = Pad<pads = [0, 0, 0, 0]>(b)  s = Slice<starts = [0], ends = [2147483647]>(p)
          d, mask = Dropout(s)  y = Squeeze<axes = [0]>(d)
        }""",
        """<ir_version: 3, opset_import: ["" : 7]>
        g (float[1, 3] x) => (float[3] y) { y = Squeeze<axes = [0]>(x) }""",
    ),
}

STAYS = {
    "identity from input to output": "g (float[2] x) => (float[2] y) { y = Identity(x) }",
    "identity from initializer to output": (
        "g (float[2] x) => (float[2] y, float[2] z) <float[2] w = {1, 2}> "
        "{ y = Identity(w)  z = Neg(x) }"
    ),
    "identity between two outputs": (
        "g (float[2] x) => (float[2] y, float[2] z) { y = Neg(x)  z = Identity(y) }"
    ),
    "two outputs that are equal": (
        "g (float[2] x) => (float[2] y, float[2] z) { y = Neg(x)  z = Neg(x) }"
    ),
    "identity that lets an outer value out of a subgraph": """
        g (float[2] x, bool c) => (float[2] y) {
          y = If(c) <then_branch = t () => (float[2] p) { p = Identity(x) },
                     else_branch = e () => (float[2] q) { q = Abs(x) }>
        }""",
    "identity from input to output of a loop body": """
        g (float[2] x, int64 n, bool c) => (float[2] y) {
          y = Loop(n, c, x) <body = b (int64 i, bool ci, float[2] a) => (bool co, float[2] d)
            { co = Identity(ci)  d = Neg(a) }>
        }""",
    "cast of an unknown type": (
        "g (float[n] x) => (float[n] y) { a = test.Make(x)  b = Cast<to = 1>(a)  y = Neg(b) }"
    ),
    "cast to a narrower type and back": (
        "g (int64[n] x) => (int64[n] y) { a = Cast<to = 6>(x)  b = Cast<to = 7>(a)  y = Neg(b) }"
    ),
    "cast of a float to a wider one and back": (
        "g (float[n] x) => (float[n] y) { a = Cast<to = 11>(x)  b = Cast<to = 1>(a)  y = Neg(b) }"
    ),
    "reshape of two unknown dimensions": (
        "g (float[n, m] x) => (float[a, b] y) <int64[2] s = {-1, 3}> { y = Reshape(x, s) }"
    ),
    "reshape to the declared but unproven shape of an inner value": """
        g (float[n, m] x) => (float[a, b] y) <int64[2] s = {2, 3}, float[2, 3] t> {
          t = Neg(x)  y = Reshape(t, s)
        }""",
    "reshape to a shape that is an input": """
        g (float[2, 3] x, int64[2] s) => (float[a, b] y) { y = Reshape(x, s) }""",
    "reshape to a default that may be replaced": """
        g (float[2, 3] x, int64[2] s = {2, 3}) => (float[a, b] y) { y = Reshape(x, s) }""",
    "two reshapes where the second copies": """
        g (float[n, 4] x) => (float[a, b, 1] y) <int64[2] s = {2, -1}, int64[3] t = {0, -1, 1}> {
          a = Reshape(x, s)  y = Reshape(a, t)
        }""",
    "transpose of unknown rank": (
        "g (float[n] x) => (float[n] y) { a = test.Make(x)  b = Transpose(a)  y = Neg(b) }"
    ),
    "transposes that are no inverses": """
        g (float[a, b, c] x) => (float[b, c, a] y, float[c, a, b] z) {
          y = Transpose<perm = [1, 2, 0]>(x)  z = Transpose<perm = [2, 0, 1]>(x)
        }""",
    "squeeze that could find a one": (
        "g (float[n, 3] x) => (float[a] y) { a = Squeeze(x)  y = Neg(a) }"
    ),
    "squeeze of other axes": """
        g (float[1, n] x) => (float[a, b] y) <int64[1] s = {2}, int64[1] t = {0}> {
          a = Unsqueeze(x, s)  y = Squeeze(a, t)
        }""",
    "expand of an unknown rank": """
        g (float[n] x) => (float[n] y) <int64[2] s = {1, 1}> {
          a = test.Make(x)  b = Expand(a, s)  y = Neg(b)
        }""",
    "expand that adds a dimension": (
        "g (float[n] x) => (float[1, n] y) <int64[2] s = {1, 1}> { y = Expand(x, s) }"
    ),
    "slice up to a length that may be exceeded": """
        g (float[n] x) => (float[n] y) <int64[1] s = {0}, int64[1] e = {100}> {
          a = Slice(x, s, e)  y = Neg(a)
        }""",
    "slice backwards": """
        g (float[n] x) => (float[n] y)
          <int64[1] s = {0}, int64[1] e = {9223372036854775807}, int64[1] a = {0}, int64[1] t = {2}>
        { b = Slice(x, s, e, a, t)  y = Neg(b) }""",
    "dropout that may train": """
        g (float[n] x, bool t) => (float[n] y) <float r = {0.5}> {
          a = Dropout(x, r, t)  y = Neg(a)
        }""",
    "dropout whose mask is read": """
        g (float[n] x) => (float[n] y, bool[n] m) { a, m = Dropout(x)  y = Neg(a) }""",
    "expressions with different attributes": """
        g (float[a, a, a] x) => (float[a, a, a] y) {
          b = Transpose<perm = [1, 2, 0]>(x)  c = Transpose<perm = [2, 0, 1]>(x)  y = Add(b, c)
        }""",
    "attributes that compare equal and are not": """
        g (float[n] x) => (float[n] y) {
          a = Elu<alpha = 0.0>(x)  b = Elu<alpha = -0.0>(x)  y = Add(a, b)
        }""",
    "inputs in another order": (
        "g (float[n] x, float[n] w) => (float[n] y) { a = Sub(x, w)  b = Sub(w, x)  y = Add(a, b) }"
    ),
    "random numbers": """
        g (float[n] x) => (float[n] y) {
          a = RandomNormalLike(x)  b = RandomNormalLike(x)  y = Add(a, b)
        }""",
    "repeated operators of other domains": (
        "g (float[n] x) => (float[n] y) { a = test.Make(x)  b = test.Make(x)  y = Add(a, b) }"
    ),
    "a dead operator of another domain": (
        "g (float[n] x) => (float[n] y) { a = test.Log(x)  y = Neg(x) }"
    ),
    "expressions in two branches": """
        g (float[2] x, bool c) => (float[2] y) {
          y = If(c) <then_branch = t () => (float[2] p) { d = Neg(x)  p = Abs(d) },
                     else_branch = e () => (float[2] q) { f = Neg(x)  q = Exp(f) }>
        }""",
    "an expression in a subgraph before the outer one": """
        g (float[2] x, bool c) => (float[2] y) {
          b = If(c) <then_branch = t () => (float[2] p) { d = Neg(x)  p = Abs(d) },
                     else_branch = e () => (float[2] q) { q = Exp(x) }>
          a = Neg(x)  y = Add(a, b)
        }""",
    "an unused input with a default": (
        "g (float[2] x, float[2] w = {1, 2}) => (float[2] y) { y = Neg(x) }"
    ),
    "a type that the caller of a function chooses": """
        <ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.f<to = 1>(x) }
        <domain: "local", opset_import: ["" : 20]>
        f <to>(a) => (b) { c = Neg(a)  b = Cast<to: int = @to>(c) }""",
    "attributes that no engine accepts": """
        g (float[a, b] x) => (float[a, b] y) {
          s = Transpose<perm = [0, 5]>(x)  t = Transpose<perm = [5, 0]>(s)
          u = Transpose<perm = 1.0>(t)  v = Cast<to = "float">(u)  y = Flatten<axis = [1]>(v)
        }""",
    "optional inputs that are left out": """
        g (float[n] x) => (float[n] y) <float top = {6}> { a = Clip(x, , top)  y = Neg(a) }""",
}


@pytest.mark.parametrize("case", FIRES)
def test_it_fires(parse, assert_graph, case):
    before, after = FIRES[case]
    model = parse(before)
    (stats,) = run_passes(model, (Clean(),))
    assert stats.changed > 0
    assert_graph(model, after)


@pytest.mark.parametrize("case", STAYS)
def test_it_does_not_fire(parse, assert_graph, case):
    text = STAYS[case].strip()
    model = parse(text)
    (stats,) = run_passes(model, (Clean(),))
    assert stats.counts == ()
    assert stats.nodes_before == stats.nodes_after
    assert_graph(model, text, valid=case != "attributes that no engine accepts")


@pytest.mark.parametrize("case", FIRES)
def test_a_second_run_changes_nothing(parse, case):
    model = parse(FIRES[case][0])
    run_passes(model, (Clean(),))
    (again,) = run_passes(model, (Clean(),))
    assert again.changed == 0


def test_the_counts_say_what_was_done(parse, counts):
    model = parse(
        """g (float[2] x) => (float[2] y) <float[2] w = {1, 2}, int64[1] s = {2}> {
          a = Identity(x)  b = Cast<to = 1>(a)  c = Reshape(b, s)  d = Neg(c)  e = Neg(x)
          f = Mul(d, w)  y = Add(d, e)
        }"""
    )
    (stats,) = run_passes(model, (Clean(),))
    assert counts(stats) == {
        "identities": 1,
        "no-op casts": 1,
        "no-op reshapes": 1,
        "common subexpressions": 1,
        "dead nodes": 5,
        "dead initializers": 2,
    }
    assert (stats.nodes_before, stats.nodes_after) == (7, 2)


def test_values_named_by_a_quantisation_annotation_stay(parse):
    model = parse(
        """g (float[2] x) => (float[2] y) <float s = {0.5}, float[2] w = {1, 2}> {
          a = Identity(x)  y = Neg(a)
        }"""
    )
    annotated = model.graph[0].outputs[0]
    annotated.meta["quant_parameter_tensor_names"] = {"SCALE_TENSOR": "s"}
    run_passes(model, (Clean(),))
    assert list(model.graph.initializers) == ["s"]
    assert [node.op_type for node in model.graph] == ["Identity", "Neg"]
    proto = ir.to_proto(model)
    assert [note.tensor_name for note in proto.graph.quantization_annotation] == ["a"]


def test_stale_declared_shapes_are_not_believed(parse, run):
    """The inputs were edited to a dynamic batch; the inner shapes still say 1."""
    model = parse(
        """g (float[n, 4] x) => (float[a, b] y) <int64[2] s = {1, 4}, float[1, 4] t> {
          t = Neg(x)  u = Transpose<perm = [1, 0]>(t)  v = Transpose<perm = [1, 0]>(u)
          y = Reshape(v, s)
        }"""
    )
    run_passes(model, (Clean(),))
    assert [node.op_type for node in model.graph] == ["Neg", "Reshape"]
    (got,) = run(model, {"x": np.ones((1, 4), np.float32)})
    np.testing.assert_array_equal(got, -np.ones((1, 4), np.float32))
