from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from leptonc.passes.fold.fold import GROWN, Fold
from leptonc.passes.pipeline import run_passes

FIRES = {
    "a node with constant inputs": (
        "g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {3, 4}> "
        "{ c = Add(a, b)  y = Mul(x, c) }",
        "g (float[2] x) => (float[2] y) <float[2] c = {4, 6}> { y = Mul(x, c) }",
    ),
    "a whole constant subgraph at once": (
        """g (float[2] x) => (float[2] y) <float[2] a = {1, 2}> {
          b = Neg(a)  c = Abs(b)  d = Exp(c)  e = Log(d)  f = Floor(a)  h = Add(e, f)  y = Mul(x, f)
        }""",
        "g (float[2] x) => (float[2] y) <float[2] f = {1, 2}> { y = Mul(x, f) }",
    ),
    "constants become initializers": (
        """g (float[2] x) => (float[2] y) {
          a = Constant<value = float[2] {1, 2}>()  b = Constant<value_float = 2.0>()
          c = Mul(a, b)  y = Mul(x, c)
        }""",
        "g (float[2] x) => (float[2] y) <float[2] c = {2, 4}> { y = Mul(x, c) }",
    ),
    "a constant output becomes an initializer and an identity": (
        "g (float[2] x) => (float[2] y, float[2] z) <float[2] a = {1, 2}> "
        "{ y = Neg(a)  z = Mul(x, y) }",
        "g (float[2] x) => (float[2] y, float[2] z) <float[2] y_value = {-1, -2}> "
        "{ y = Identity(y_value)  z = Mul(x, y) }",
    ),
    "the shape of an input": (
        "g (float[2, 3] x) => (int64[2] y) { s = Shape(x)  y = Neg(s) }",
        "g (float[2, 3] x) => (int64[2] y) <int64[2] y_value = {-2, -3}> { y = Identity(y_value) }",
    ),
    "the known part of a shape": (
        """g (float[n, 12, 64] x) => (int64[1] y, int64[3] z)
          <int64 one = {1}, int64[1] front = {0}> {
          s = Shape(x)  h = Gather(s, one)  u = Unsqueeze(h, front)  y = Add(u, one)  z = Neg(s)
        }""",
        """g (float[n, 12, 64] x) => (int64[1] y, int64[3] z) <int64[1] y_value = {13}> {
          s = Shape(x)  y = Identity(y_value)  z = Neg(s)
        }""",
    ),
    "the known part of a shape, sliced": (
        "g (float[n, 12, 64] x) => (int64[2] y) { s = Shape<start = 1>(x)  y = Neg(s) }",
        "g (float[n, 12, 64] x) => (int64[2] y) <int64[2] y_value = {-12, -64}> "
        "{ y = Identity(y_value) }",
    ),
    "the size": (
        "g (float[2, 3] x) => (float[2, 3] y) { s = Size(x)  c = Cast<to = 1>(s)  y = Mul(x, c) }",
        "g (float[2, 3] x) => (float[2, 3] y) <float c = {6}> { y = Mul(x, c) }",
    ),
    "inside a branch, with constants from outside": (
        """g (float[2] x, bool c) => (float[2] y) <float[2] a = {1, 2}> {
          y = If(c) <then_branch = t () => (float[2] p) { b = Neg(a)  p = Mul(x, b) },
                     else_branch = e () => (float[2] q) { q = Mul(x, a) }>
        }""",
        """g (float[2] x, bool c) => (float[2] y) <float[2] a = {1, 2}> {
          y = If(c) <then_branch = t () => (float[2] p) <float[2] b = {-1, -2}> { p = Mul(x, b) },
                     else_branch = e () => (float[2] q) { q = Mul(x, a) }>
        }""",
    ),
    "inside a loop": (
        """g (float[2] x, int64 n, bool c) => (float[2] y) <float[2] a = {1, 2}> {
          y = Loop(n, c, x) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] d) {
            co = Identity(ci)  e = Exp(a)  f = Sub(e, e)  d = Add(s, f) }>
        }""",
        """g (float[2] x, int64 n, bool c) => (float[2] y) {
          y = Loop(n, c, x) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] d)
            <float[2] f = {0, 0}> { co = Identity(ci)  d = Add(s, f) }>
        }""",
    ),
    "a branch that is always taken": (
        """g (float[2] x) => (float[2] y) <bool c = {1}> {
          a = If(c) <then_branch = t () => (float[2] p) <float[2] w = {1, 2}> { p = Mul(x, w) },
                     else_branch = e () => (float[2] q) { q = Abs(x) }>
          y = Neg(a)
        }""",
        """g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { p = Mul(x, w)  y = Neg(p) }""",
    ),
    "a branch whose results are outputs": (
        """g (float[2] x) => (float[2] y, float[2] z, float[2] w) <bool c = {0}> {
          y, z, w = If(c) <
            then_branch = t () => (float[2] p, float[2] q, float[2] r)
              { p = Abs(x)  q = Neg(x)  r = Exp(x) },
            else_branch = e () => (float[2] s, float[2] u, float[2] v) <float[2] u = {1, 2}>
              { s = Neg(x)  v = Identity(x) }>
        }""",
        """g (float[2] x) => (float[2] y, float[2] z, float[2] w) <float[2] u = {1, 2}> {
          y = Neg(x)  w = Identity(x)  z = Identity(u)
        }""",
    ),
    "strings": (
        """g (int64[1] i) => (string[1] y) <string[2] a = {"b", "c"}, string[2] d = {"e", "f"}> {
          s = StringConcat(a, d)  y = Gather(s, i)
        }""",
        """g (int64[1] i) => (string[1] y) <string[2] s = {"be", "cf"}> { y = Gather(s, i) }""",
    ),
    "in a function, as constant nodes": (
        """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 20]>
        f (a) => (b) { o = Constant<value = int64[1] {1}>()  m = Constant<value = int64[1] {2}>()
          s = Concat<axis = 0>(o, m)  b = Expand(a, s) }""",
        """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 20]>
        f (a) => (b) { s = Constant<value = int64[2] {1, 2}>()  b = Expand(a, s) }""",
    ),
    "in IR version 3, as constant nodes": (
        """<ir_version: 3, opset_import: ["" : 9]>
        g (float[2] x) => (float[2] y) {
          a = Constant<value = float[2] {1, 2}>()  b = Neg(a)  y = Mul(x, b)
        }""",
        """<ir_version: 3, opset_import: ["" : 9]>
        g (float[2] x) => (float[2] y) {
          b = Constant<value = float[2] {-1, -2}>()  y = Mul(x, b)
        }""",
    ),
}

STAYS = {
    "an initializer that is an input": """
        g (float[2] x, float[2] a = {1, 2}) => (float[2] y) { b = Neg(a)  y = Mul(x, b) }""",
    "random numbers": """
        g (float[2] x) => (float[2] y) <float[2] a = {1, 2}> {
          b = RandomNormalLike(a)  c = Bernoulli(a)  d = Add(b, c)  y = Mul(x, d)
        }""",
    "dropout in training": """
        g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float r = {0.5}, bool t = {1}> {
          b = Dropout(a, r, t)  y = Mul(x, b)
        }""",
    "a quantised weight": """
        g (float[2] x) => (float[2] y) <int8[2] a = {1, 2}, float s = {0.5}> {
          b = DequantizeLinear(a, s)  y = Mul(x, b)
        }""",
    "a sequence": """
        g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, int64 i = {0}> {
          s = SequenceConstruct(a, a)  b = SequenceAt(s, i)  y = Mul(x, b)
        }""",
    "an operator of another domain": """
        g (float[2] x) => (float[2] y) <float[2] a = {1, 2}> { b = test.Neg(a)  y = Mul(x, b) }""",
    "a loop over constants": """
        g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, int64 n = {9}, bool c = {1}> {
          b = Loop(n, c, a) <body = l (int64 i, bool ci, float[2] s) => (bool co, float[2] d) {
            co = Identity(ci)  d = Add(s, s) }>
          y = Mul(x, b)
        }""",
    "an integer division by zero": """
        g (int32[2] x) => (int32[2] y) <int32[2] a = {1, 2}, int32[2] z = {1, 0}> {
          b = Div(a, z)  y = Mul(x, b)
        }""",
    "a remainder of minus one": """
        g (int64[2] x) => (int64[2] y) <int64[2] a = {1, 2}, int64[2] z = {1, -1}> {
          b = Mod(a, z)  y = Mul(x, b)
        }""",
    "what the engine refuses to compute": """
        g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, int64[1] i = {7}> {
          b = Gather(a, i)  y = Mul(x, b)
        }""",
    "a shape of which nothing is known": """
        g (float[2, 3] x) => (int64[2] y) { a = test.Make(x)  s = Shape(a)  y = Neg(s) }""",
    "the unknown part of a shape": """
        g (float[n, 3] x) => (int64[1] y) <int64[1] zero = {0}> {
          s = Shape(x)  h = Gather(s, zero)  y = Neg(h)
        }""",
    "an identity that separates a weight from an output": """
        g (float[2] x) => (float[2] y, float[2] z) <float[2] w = {1, 2}> {
          y = Identity(w)  z = Neg(x)
        }""",
    "a branch that is chosen when the model runs": """
        g (float[2] x, bool c) => (float[2] y) {
          y = If(c) <then_branch = t () => (float[2] p) { p = Neg(x) },
                     else_branch = e () => (float[2] q) { q = Abs(x) }>
        }""",
}

REASONS = {
    "random numbers": ["it draws random numbers", "it draws random numbers"],
    "dropout in training": ["it behaves differently in training"],
    "a quantised weight": ["it would undo the quantisation of a weight"],
    "a sequence": ["it works on sequences or optional values"],
    "a loop over constants": ["it runs a subgraph"],
    "an integer division by zero": ["it divides by zero"],
    "a remainder of minus one": ["it divides by -1, which can overflow"],
}


@pytest.mark.parametrize("case", FIRES)
def test_it_fires(parse, assert_graph, case):
    before, after = FIRES[case]
    model = parse(before)
    # What one run makes known may take another to compute.
    run_passes(model, (Fold(), Fold(), Fold()))
    assert_graph(model, after)


@pytest.mark.parametrize("case", STAYS)
def test_it_does_not_fire(parse, assert_graph, case):
    model = parse(STAYS[case])
    (stats,) = run_passes(model, (Fold(),))
    assert stats.counts == ()
    assert_graph(model, STAYS[case])


@pytest.mark.parametrize("case", REASONS)
def test_it_says_why_not(parse, case):
    (stats,) = run_passes(parse(STAYS[case]), (Fold(),))
    assert [refusal.reason for refusal in stats.refused] == REASONS[case]


def test_it_repeats_what_the_engine_said(parse):
    model = parse(STAYS["what the engine refuses to compute"])
    model.graph[0].name = "pick"
    (stats,) = run_passes(model, (Fold(),))
    (refusal,) = stats.refused
    assert refusal.node == "pick"
    assert "out of data bounds" in refusal.reason


def test_one_node_that_fails_does_not_hold_up_the_rest(parse, assert_graph):
    model = parse(
        """g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, int64[1] i = {7}> {
          n = Neg(a)  b = Gather(n, i)  c = Abs(b)  d = Exp(c)  e = Floor(a)
          f = Mul(d, e)  y = Mul(x, f)
        }"""
    )
    run_passes(model, (Fold(),))
    assert_graph(
        model,
        """g (float[2] x) => (float[2] y)
          <int64[1] i = {7}, float[2] n = {-1, -2}, float[2] e = {1, 2}> {
          b = Gather(n, i)  c = Abs(b)  d = Exp(c)  f = Mul(d, e)  y = Mul(x, f)
        }""",
    )


GROWING = """g (float[256, 256] x) => (float[256, 256] y) <float a = {1}, int64[2] s = {256, 256}> {
  b = Expand(a, s)  y = Mul(x, b)
}"""


@pytest.mark.parametrize(("budget", "folds"), [(256 * 256 * 4, True), (256 * 256 * 4 - 21, False)])
def test_the_model_grows_by_the_budget_at_most(parse, counts, budget, folds):
    """The result takes 256 KiB, and the scalar and the shape that go free 20 bytes."""
    model = parse(GROWING)
    (stats,) = run_passes(model, (Fold(budget_bytes=budget),))
    assert counts(stats).get("values folded", 0) == int(folds)
    reasons = [refusal.reason for refusal in stats.refused]
    assert reasons == ([] if folds else ["its result would make the model grow past the budget"])


def test_the_budget_is_for_all_runs_together(parse, counts):
    text = GROWING.replace("y = Mul(x, b)", "c = Mul(x, b)  d = Expand(w, s)  y = Mul(c, d)")
    model = parse(text.replace("float a = {1}", "float a = {1}, float w = {2}"))
    budget = 300_000
    (first,) = run_passes(model, (Fold(budget_bytes=budget),))
    (second,) = run_passes(model, (Fold(budget_bytes=budget),))
    assert counts(first) == {"values folded": 1}
    assert second.counts == ()
    assert 0 < int(model.metadata_props[GROWN]) <= budget


def test_a_transposed_weight_costs_nothing(parse, counts):
    """The weight goes as its transpose comes: no budget is needed."""
    model = parse(
        "g (float[n, 4] x) => (float[n, 3] y) <float[3, 4] w> "
        "{ t = Transpose<perm = [1, 0]>(w)  y = MatMul(x, t) }".replace(
            "<float[3, 4] w>", f"<float[3, 4] w = {{{', '.join(map(str, range(12)))}}}>"
        )
    )
    (stats,) = run_passes(model, (Fold(budget_bytes=0),))
    assert counts(stats) == {"values folded": 1}
    assert GROWN not in model.metadata_props


def test_a_weight_that_is_read_elsewhere_counts_as_growth(parse, counts):
    model = parse(
        "g (float[n, 4] x, int64[1] i) => (float[n, 3] y, float[1, 4] z) <float[3, 4] w> "
        "{ t = Transpose<perm = [1, 0]>(w)  y = MatMul(x, t)  z = Gather(w, i) }".replace(
            "<float[3, 4] w>", f"<float[3, 4] w = {{{', '.join(map(str, range(12)))}}}>"
        )
    )
    (stats,) = run_passes(model, (Fold(budget_bytes=47),))
    assert stats.counts == ()


TYPES = {
    "bfloat16": (16, ir.DataType.BFLOAT16),
    "float8e4m3fn": (17, ir.DataType.FLOAT8E4M3FN),
    "int4": (22, ir.DataType.INT4),
    "double": (11, ir.DataType.DOUBLE),
    "bool": (9, ir.DataType.BOOL),
}


@pytest.mark.parametrize("name", TYPES)
def test_types_that_numpy_lacks_are_folded_too(parse, run, name):
    number, dtype = TYPES[name]
    text = f"""<ir_version: 10, opset_import: ["" : 21, "test" : 1]>
    g (float[3] x) => (float[3] y) <float[3] a = {{1, -2, 0}}> {{
      b = Cast<to = {number}>(a)  c = test.Keep(b)  d = Cast<to = 1>(b)  y = Mul(x, d)
    }}"""
    model = parse(text)
    run_passes(model, (Fold(),))
    folded = model.graph.initializers["b"].const_value
    assert folded.dtype == dtype
    expected = [1, 1, 0] if name == "bool" else [1, -2, 0]
    np.testing.assert_array_equal(folded.numpy().astype(np.float32), expected)
    np.testing.assert_array_equal(model.graph.initializers["d"].const_value.numpy(), expected)


def large(parse, body: str) -> ir.Model:
    model = parse(f"g (float[1, 1024] x) => (float[1, n] y) <float[1, 1] w = {{1}}> {{ {body} }}")
    weight = model.graph.initializers["w"]
    array = np.random.default_rng(0).normal(size=(512, 1024)).astype(np.float32)
    weight.const_value = ir.tensor(array, name="w")
    weight.shape = ir.Shape([512, 1024])
    return model


@pytest.mark.parametrize(
    "body",
    [
        "t = Transpose<perm = [1, 0]>(w)  y = MatMul(x, t)",
        "e = Exp(w)  t = Transpose<perm = [1, 0]>(e)  y = MatMul(x, t)",
        "t = Transpose<perm = [1, 0]>(w)  a, b = Split<axis = 1, num_outputs = 2>(t)"
        "  c = MatMul(x, a)  d = MatMul(x, b)  y = Concat<axis = 1>(c, d)",
    ],
)
def test_large_results_are_computed_when_they_are_read(parse, run, body):
    model = large(parse, body)
    feeds = {"x": np.random.default_rng(1).normal(size=(1, 1024)).astype(np.float32)}
    (expected,) = run(model, feeds)
    run_passes(model, (Fold(),))
    tensors = [value.const_value for value in model.graph.initializers.values()]
    assert all(isinstance(tensor, ir.LazyTensor) for tensor in tensors if tensor.nbytes > 1024)
    assert "Transpose" not in {node.op_type for node in model.graph}
    (got,) = run(model, feeds)
    assert got.tobytes() == expected.tobytes()


def test_the_values_are_the_bits_that_the_engine_computes(parse, run):
    text = """g (float[2] x) => (float[64] y, float[2] z) <float[64] a = {VALUES}> {
      b = Exp(a)  c = Tanh(b)  d = Softmax(c)  e = Erf(d)  y = Sqrt(e)  z = Neg(x)
    }"""
    values = np.random.default_rng(2).normal(size=64).astype(np.float32)
    model = parse(text.replace("VALUES", ", ".join(map(str, values.tolist()))))
    feeds = {"x": np.zeros(2, np.float32)}
    before = run(model, feeds)
    run_passes(model, (Fold(),))
    assert [node.op_type for node in model.graph] == ["Identity", "Neg"]
    after = run(model, feeds)
    assert [array.tobytes() for array in before] == [array.tobytes() for array in after]


def test_without_the_engine_it_refuses(parse, monkeypatch):
    monkeypatch.setattr("leptonc.passes.fold.fold.find_spec", lambda name: None)
    assert "onnxruntime is not installed" in str(Fold().requires(parse(GROWING)))
