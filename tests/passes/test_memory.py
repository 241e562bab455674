"""Weights stay where they are: what a model weighs is not what optimising it takes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from leptonc.passes import optimize
from leptonc.passes.graph.structure import graphs

SIDE = 2048
LAYERS = 12
WEIGHT = SIDE * SIDE * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twelve different weights of 16 MiB in one file."""
    path = tmp_path_factory.mktemp("weights")
    generator = np.random.default_rng(0)
    with (path / "weights").open("wb") as file:
        for _ in range(LAYERS):
            generator.random((SIDE, SIDE), np.float32).tofile(file)
    return path


def model(folder: Path, per_layer: str) -> ir.Model:
    """Return layers that multiply by the transpose, or another function, of a weight."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", SIDE]))
    current, nodes, weights = x, [], []
    for layer in range(LAYERS):
        tensor = ir.ExternalTensor(
            "weights",
            layer * WEIGHT,
            WEIGHT,
            ir.DataType.FLOAT,
            shape=ir.Shape([SIDE, SIDE]),
            name=f"w{layer}",
            base_dir=folder,
        )
        weight = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=tensor.shape,
            const_value=tensor,
        )
        changed = ir.node(per_layer, [weight])
        product = ir.node("MatMul", [current, changed.outputs[0]])
        # Without an activation all layers would become one.
        bent = ir.node("Relu", [product.outputs[0]])
        for node, name in ((changed, "c"), (product, "p"), (bent, "r")):
            node.outputs[0].name = f"{name}{layer}"
        nodes += [changed, product, bent]
        weights.append(weight)
        current = bent.outputs[0]
    current.type, current.shape = x.type, ir.Shape(["n", SIDE])
    graph = ir.Graph(
        [x], [current], nodes=nodes, initializers=weights, name="g", opset_imports={"": 20}
    )
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("per_layer", "weights_in_memory"),
    [("Identity", 0.1), ("Transpose", 0.1), ("Neg", 2.5)],
)
def test_memory_is_for_one_weight_at_most(folder, per_layer, weights_in_memory):
    """NumPy's allocations: none for what only moves, one weight's for what is computed."""
    optimized = model(folder, per_layer)
    tracemalloc.start()
    try:
        optimize(optimized)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(optimized.graph) == 2 * LAYERS
    assert peak < (4 << 20) + weights_in_memory * WEIGHT
    assert held < 4 << 20


@pytest.mark.parametrize("per_layer", ["Identity", "Transpose", "Neg"])
def test_no_file_stays_mapped(folder, per_layer):
    """Mapped pages that were read count as memory of the process."""
    optimized = model(folder, per_layer)
    tensors = [value.const_value for value in optimized.graph.initializers.values()]
    optimize(optimized)
    assert [tensor.raw for tensor in tensors] == [None] * LAYERS


def test_a_folded_weight_is_computed_when_it_is_read(folder):
    optimized = model(folder, "Neg")
    optimize(optimized)
    first = optimized.graph.initializers["c0"].const_value
    original = np.fromfile(folder / "weights", np.float32, SIDE * SIDE).reshape(SIDE, SIDE)
    assert isinstance(first, ir.LazyTensor)
    np.testing.assert_array_equal(first.numpy(), -original)


def test_untouched_weights_stay_external(folder):
    optimized = model(folder, "Identity")
    optimize(optimized)
    tensors = [v.const_value for g in graphs(optimized.graph) for v in g.initializers.values()]
    assert len(tensors) == LAYERS
    assert all(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
