"""Graphs as they are written, optimised for many samples, and as payloads."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from leptonc.backends import find_backend, parse_target
from leptonc.compiler.running.graph_runner import GraphRunner, node_seconds, payload_runner
from leptonc.runtime.errors import EngineError

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def graph() -> ir.Model:
    """`y = relu(2x) + 2x`, in which an optimiser finds nothing to leave out."""
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 4] x) => (float[N, 4] y) <float two = {2.0}> {
            a = Mul (x, two)
            b = Relu (a)
            y = Add (b, a)
        }"""
    )
    for index, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{index}"
    return model


@pytest.mark.parametrize("optimised", [False, True])
def test_inner_values_come_behind_the_outputs_and_the_graph_stays(optimised):
    model = graph()
    found = GraphRunner(model, extra_outputs=["b", "a"], optimised=optimised)(
        {"x": X, "unknown": X}
    )
    assert list(found) == ["y", "b", "a"]
    np.testing.assert_array_equal(found["a"], 2 * X)
    np.testing.assert_array_equal(found["y"], np.maximum(2 * X, 0) + 2 * X)
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert model.graph.initializers["two"].const_value is not None


@pytest.mark.parametrize(("optimised", "fix"), [(False, None), (True, "check that the values")])
def test_a_run_that_fails_names_the_shapes(optimised, fix):
    with pytest.raises(EngineError, match="failed while running") as caught:
        GraphRunner(graph(), optimised=optimised)({"x": X[:, :3]})
    assert caught.value.where == "x [3, 3]"
    assert str(caught.value.fix or "").startswith(fix or "")
    assert (caught.value.fix is None) == (fix is None)


def test_a_payload_runs_and_its_nodes_are_timed(tmp_path):
    target = parse_target("ort-cpu")
    payload = find_backend(target).build(graph(), target, tmp_path)
    np.testing.assert_array_equal(
        payload_runner(payload)({"x": X})["y"], np.maximum(2 * X, 0) + 2 * X
    )
    seconds = node_seconds(payload, {"x": X})
    assert {node.name for node in payload.model().graph} >= set(seconds)
    assert seconds
    assert all(value >= 0 for value in seconds.values())
