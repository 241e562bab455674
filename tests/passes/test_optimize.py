from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from leptonc.passes import PASSES, optimize
from leptonc.passes.errors import ModelError
from leptonc.passes.schedule import ON_DEMAND
from leptonc.runtime.errors import UnsupportedError


def test_it_cleans_folds_and_shares_to_the_end(parse, assert_graph):
    model = parse(
        """g (float[n, 12] x) => (float[n, 3, 4] y, float[n] z)
          <int64 zero = {0}, int64[1] front = {0}> {
          one = Constant<value = float {1}>()  also = Constant<value = float {1}>()
          two = Add(one, also)  three = Add(two, one)
          s = Shape(x)  h = Gather(s, zero)  n = Unsqueeze(h, front)
          a = Constant<value_ints = [3]>()  b = Constant<value_ints = [4]>()
          t = Concat<axis = 0>(n, a, b)
          r = Reshape(x, t)  i = Identity(r)  y = Mul(i, three)
          axes = Constant<value_ints = [1, 2]>()
          m = Mul(i, three)  z = ReduceSum<keepdims = 0>(m, axes)
        }"""
    )
    optimize(model)
    assert_graph(
        model,
        """g (float[n, 12] x) => (float[n, 3, 4] y, float[n] z)
          <int64[3] shape = {0, 3, 4}, float three = {3}, int64[2] axes = {1, 2}> {
          r = Reshape(x, shape)  y = Mul(r, three)  z = ReduceSum<keepdims = 0>(y, axes)
        }""",
    )


def test_a_second_run_changes_nothing(parse):
    model = parse(
        """g (float[2, 3] x, bool c) => (float[a, b] y) <float[2] w = {1, 2}, float[2] v = {1, 2}> {
          s = Shape(x)  e = ConstantOfShape(s)  f = Add(e, x)  h = Identity(f)
          y = If(c) <
            then_branch = t () => (float[a, b] p) { k = Mul(w, v)  o = ReduceSum(k)  p = Add(h, o) },
            else_branch = e () => (float[a, b] q) { q = Transpose<perm = [0, 1]>(h) }>
        }"""
    )
    first = optimize(model)
    text = ir.to_onnx_text(model)
    second = optimize(model)
    assert any(stats.changed for stats in first)
    assert [stats.counts for stats in second] == [()] * len(second)
    assert ir.to_onnx_text(model) == text


def test_the_passes_are_reported_in_order(parse):
    model = parse("g (float[2] x) => (float[2] y) { a = Identity(x)  y = Neg(a) }")
    stats = optimize(model)
    assert [one.name for one in stats] == [step.name for step in PASSES if step not in ON_DEMAND]
    assert stats[0].counts == (("dead nodes", 1), ("identities", 1))
    assert (stats[0].nodes_before, stats[-1].nodes_after) == (2, 1)


def test_an_unknown_target_names_the_known_ones(parse):
    with pytest.raises(UnsupportedError) as caught:
        optimize(parse("g (float[2] x) => (float[2] y) { y = Neg(x) }"), target="ort-npu")
    assert caught.value.fix == "choose one of generic, primitive, ort-cpu, ort-cuda"
    assert caught.value.exit_code == 4


def test_an_invalid_model_is_refused(parse):
    model = parse("g (float[2] x) => (float[2] y) { a = Neg(x)  y = Neg(a) }")
    model.graph[1].replace_input_with(0, ir.Value(name="nobody"))
    with pytest.raises(ModelError, match="'nobody' is read and nothing defines it"):
        optimize(model)


def test_a_sparse_initializer_is_refused_and_not_lost():
    """onnx-ir drops sparse initializers: their readers then read nothing."""
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x) => (float[2] y) { y = Add(x, w) }'
    )
    sparse = proto.graph.sparse_initializer.add()
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32), "w"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, np.int64)))
    sparse.dims.append(2)
    with pytest.raises(ModelError, match="'w' is read and nothing defines it"):
        optimize(ir.from_proto(proto))


def test_what_describes_the_model_is_kept(parse):
    proto = ir.to_proto(parse("g (float[2] x) => (float[2] y) { a = Identity(x)  y = Neg(a) }"))
    proto.producer_name, proto.domain, proto.model_version = "tests", "org.example", 3
    proto.doc_string = proto.graph.doc_string = "about"
    for place in (proto, proto.graph, proto.graph.input[0], proto.graph.output[0]):
        entry = place.metadata_props.add()
        entry.key, entry.value = "key", "value"
    model = ir.from_proto(proto)
    optimize(model)
    after = ir.to_proto(model)
    del proto.graph.node[:], after.graph.node[:]
    del proto.graph.value_info[:], after.graph.value_info[:]
    assert after == proto


@pytest.mark.parametrize("opset", range(7, 27))
def test_every_opset(run, opset):
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[2, 3] x) => (float[3, 2] y) <float[3, 2] w = {{1, 2, 3, 4, 5, 6}}> {{
      a = Identity(x)  b = Transpose<perm = [1, 0]>(a)  c = Transpose<perm = [1, 0]>(b)
      d = Transpose<perm = [1, 0]>(c)  e = Neg(w)  y = Add(d, e)
    }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    optimize(model)
    assert sorted(node.op_type for node in model.graph) == ["Add", "Transpose"]
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (got,) = run(model, {"x": x})
    np.testing.assert_array_equal(got, x.T - np.arange(1, 7, dtype=np.float32).reshape(3, 2))


@pytest.mark.parametrize("version", [3, 4, 6, 9, 10, 11])
def test_every_ir_version(version):
    text = f"""<ir_version: {version}, opset_import: ["" : 9]>
    g (float[2] x) => (float[2] y) {{
      a = Constant<value = float[2] {{1, 2}}>()  b = Neg(a)  c = Identity(b)  y = Add(x, c)
    }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    optimize(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    left = [node.op_type for node in proto.graph.node]
    assert left == (["Constant", "Add"] if version == 3 else ["Add"])


def test_importing_the_passes_does_not_import_torch():
    code = "import sys, leptonc.passes; print([n for n in ('torch', 'onnxruntime', 'onnxsim') "
    code += "if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_passes_are_listed():
    names = [one.name for one in PASSES]
    assert len(names) == len(set(names))
    assert names[:4] == ["clean", "fold", "shapes", "share"]
    assert names[-1] == "simplify"
