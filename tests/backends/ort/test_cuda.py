"""Builds for ONNX Runtime on a GPU, without one: what is refused, and what is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from small_artifacts import parse

from leptonc.backends import find_backend, parse_target
from leptonc.backends.errors import PlacementError, UnsupportedOperatorError
from leptonc.backends.ort.cuda import read_cuda_placement
from leptonc.backends.ort.cuda_kernels import missing_kernel
from leptonc.runtime.engines.ort.cuda_provider import CUDA

HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1, "own" : 1]>'
TARGET = parse_target("ort-cuda")


def build(text: str, folder: Path, weights: dict[str, np.ndarray] | None = None):
    return find_backend(TARGET).build(parse(f"{HEAD} {text}", weights), TARGET, folder)


def test_it_is_built_ahead_and_says_that_it_has_not_run(tmp_path: Path) -> None:
    weights = {"w": np.ones((4, 300), np.float32)}
    text = "g (float[2,4] x) => (float[2,300] y) { h = MatMul(x, w) y = Relu(h) }"
    payload = build(text, tmp_path, weights)
    assert payload.not_run is not None
    assert "without its CUDA provider" in payload.not_run
    assert payload.placement == {}
    assert payload.variant["device"] == "gpu"
    assert payload.variant["demands"]["provider"] == CUDA
    assert [weight.name for weight in payload.weights] == ["w"]
    assert build(text, tmp_path, weights).graph == payload.graph


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("com.microsoft.FusedGemm(x, x)", "there is no CUDA kernel for it"),
        ("Det(x)", "there is no CUDA kernel for it"),
        ("own.Magic(x)", "the domain 'own' has no CUDA kernels"),
        (
            "com.microsoft.GroupQueryAttention <num_heads=2,kv_num_heads=1> (x, x, x)",
            "its CUDA kernels are for 16 bits, not for float",
        ),
    ],
)
def test_a_node_without_a_kernel_is_refused_by_name(node: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperatorError, match=reason) as caught:
        build(f"g (float[2,2] x) => (float[2,2] y) {{ y = {node} }}", tmp_path)
    assert caught.value.exit_code == 4
    assert "ort-cpu" in str(caught.value.fix)


def test_attention_has_kernels_for_16_bits() -> None:
    node = ir.Node("com.microsoft", "GroupQueryAttention", [])
    assert missing_kernel(node, ir.DataType.FLOAT16) is None
    assert missing_kernel(node, ir.DataType.BFLOAT16) is None


@dataclass
class Placed:
    """A node as the engine reports it."""

    name: str
    op_type: str


@dataclass
class Share:
    """What one provider got."""

    ep_name: str
    nodes: tuple[Placed, ...]

    def get_nodes(self) -> tuple[Placed, ...]:
        return self.nodes


ON_GPU = Share(CUDA, (Placed("a", "MatMul"), Placed("b", "MatMul")))


def test_what_computes_shapes_may_stay_on_the_cpu() -> None:
    rest = Share("CPUExecutionProvider", (Placed("s", "Shape"),))
    assert read_cuda_placement([ON_GPU, rest], frozenset({"a", "b"})) == {
        "CPUExecutionProvider": {"Shape": 1},
        CUDA: {"MatMul": 2},
    }


def test_a_node_of_floats_on_the_cpu_is_an_error() -> None:
    rest = Share("CPUExecutionProvider", (Placed("c", "Det"),))
    with pytest.raises(PlacementError, match="node 'c' .Det. was asked for on the GPU") as caught:
        read_cuda_placement([ON_GPU, rest], frozenset({"a", "b", "c"}))
    assert caught.value.exit_code == 4
