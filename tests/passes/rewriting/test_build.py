"""New nodes that are like old ones."""

from __future__ import annotations

from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.graph.names import Names
from leptonc.passes.rewriting.build import Build, attributes_of


def test_a_node_is_made_again_with_changed_attributes(parse):
    model = parse(
        """<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>
        g (float[2,2] x) => (float[2,2] y)
        { y = com.microsoft.FusedMatMul<alpha = 2.0, transA = 1, transB = 0>(x, x) }"""
    )
    node, x = model.graph[0], model.graph.inputs[0]
    build = Build(Names(model), infer_facts(model), "new")
    made = build.again(node, [x, x], like=node.outputs[0], transA=None, transB=1)
    (new,) = build.nodes
    assert (new.domain, new.op_type) == ("com.microsoft", "FusedMatMul")
    assert list(attributes_of(new).items()) == [("alpha", 2.0), ("transB", 1)]
    assert made is new.outputs[0]
    assert made.dtype == node.outputs[0].dtype
    assert list(attributes_of(node)) == ["alpha", "transA", "transB"]
