"""The passes over linear layers: in which order their rules meet, and on whole blocks."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from linear_graphs import assert_same, operators, parsed

from leptonc.passes.fusions.linear.fuse import FUSE_LINEAR, PLAIN_LINEAR
from leptonc.passes.pipeline import Context, run_passes
from leptonc.passes.targets import TARGETS

# Two heads of size 1, scores with a scale, a projection on flattened rows, gate and up.
BLOCK = """
g (float[n,3,2] x) => (float[n,3,2] y) <
    float[2,2] wq = {1,2,3,4}, float[2] bq = {1,0}, float[2,2] wk = {2,1,0,1}, float[2] bk = {0,1},
    float[2,2] wv = {1,1,0,2}, float[2] bv = {1,1}, float[2,2] wo = {1,0,2,1}, float[2] bo = {3,1},
    float[2,4] wg = {1,2,0,1,2,1,1,1}, float[2,4] wu = {1,0,0,1,2,3,1,1},
    float[4,2] wd = {1,2,3,4,0,0,1,1}, float s = {4}, int64[2] rows = {-1,2},
    int64[3] back = {-1,3,2}, int64[4] heads = {0,3,2,1}
> {
    pq = MatMul(x, wq)  q = Add(pq, bq)  q4 = Reshape(q, heads)
    pk = MatMul(x, wk)  k = Add(pk, bk)  k4 = Reshape(k, heads)
    pv = MatMul(x, wv)  v = Add(pv, bv)  v4 = Reshape(v, heads)
    qt = Transpose<perm = [0, 2, 1, 3]>(q4)  kt = Transpose<perm = [0, 2, 3, 1]>(k4)
    vt = Transpose<perm = [0, 2, 1, 3]>(v4)
    scores = MatMul(qt, kt)  scaled = Div(scores, s)  weights = Softmax(scaled)
    mixed = MatMul(weights, vt)  mt = Transpose<perm = [0, 2, 1, 3]>(mixed)
    flat = Reshape(mt, rows)  o = Gemm(flat, wo, bo)  o3 = Reshape(o, back)
    h = Add(o3, x)  gate = MatMul(h, wg)  up = MatMul(h, wu)  act = Sigmoid(gate)
    m = Mul(act, up)  y = MatMul(m, wd)
}
"""


def _run(pass_, target: str) -> ir.Model:
    before, context = parsed(BLOCK), Context(target)
    model = ir.from_proto(before)
    run_passes(model, [pass_], context)
    assert_same(before, ir.to_proto(model))
    (again,) = run_passes(model, [pass_], context)
    assert not again.changed
    return model


@pytest.mark.parametrize("target", TARGETS)
def test_the_early_half_only_removes_the_flattening(target):
    model = _run(PLAIN_LINEAR, target)
    assert "Gemm" not in operators(model)
    assert operators(model).count("MatMul") == 9
    assert operators(model).count("Reshape") == 4
    assert "Div" in operators(model)


@pytest.mark.parametrize(
    ("target", "products", "splits", "fused", "scales"),
    [
        ("generic", 6, 2, 0, 0),
        ("primitive", 9, 0, 0, 1),
        ("ort-cpu", 9, 0, 0, 0),
        ("ort-cuda", 6, 2, 0, 0),
    ],
)
def test_each_target_gets_its_form(target, products, splits, fused, scales):
    found = operators(_run(FUSE_LINEAR, target))
    assert found.count("MatMul") == products
    assert found.count("Split") == splits
    assert found.count("FusedMatMul") == fused
    assert found.count("Div") == scales


def test_the_scale_reaches_the_queries_before_they_are_packed():
    model = ir.from_proto(parsed(BLOCK))
    (stats,) = run_passes(model, [FUSE_LINEAR])
    assert dict(stats.counts) == {"gemm-reshape": 1, "linear-scale": 1, "packed-linear": 2}
    assert [firing.rule for firing in stats.fired].index("linear-scale") < 2


def test_every_rule_has_a_name_of_its_own():
    names = [rule.name for rule in (*FUSE_LINEAR.rules, *FUSE_LINEAR.then)]
    assert len(names) == len(set(names))
    assert {rule.name for rule in PLAIN_LINEAR.rules} <= set(names)
