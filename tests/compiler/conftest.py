"""Small models on disk, made without PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from leptonc.runtime.artifact.writer import SectionData, stage_artifact

LINEAR = """
<ir_version: 10, opset_import: ["" : 20]>
linear (float[batch, 64] x) => (float[batch, 32] y) {
  h = MatMul(x, w)
  s = Add(h, b)
  y = Relu(s)
}
"""
DYNAMIC_BATCH = {"name": "batch", "min": 1, "max": 8}


def linear_weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    return {
        "w": generator.standard_normal((64, 32)).astype(np.float32),
        "b": generator.standard_normal(32).astype(np.float32),
    }


def linear_manifest(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    offsets = {"w": 0, "b": weights["w"].nbytes}
    return {
        "leptonc": "0.0.1",
        "name": "linear",
        "signature": {
            "inputs": [{"name": "x", "dtype": "float32", "shape": [DYNAMIC_BATCH, 64]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": [DYNAMIC_BATCH, 32]}],
        },
        "variants": [
            {
                "name": "ort-cpu",
                "backend": "ort",
                "device": "cpu",
                "precision": "fp32",
                "demands": {
                    "engine": "onnxruntime",
                    "engine_min": "1.23",
                    "opset": 20,
                    "instructions": [],
                },
                "graph": "ort-cpu/graph",
                "options": {},
                "weights": [
                    {
                        "name": name,
                        "dtype": "float32",
                        "shape": list(array.shape),
                        "section": "weights",
                        "offset": offsets[name],
                        "length": array.nbytes,
                    }
                    for name, array in weights.items()
                ],
            }
        ],
        "source": {"kind": "recipe", "fingerprint": "ab" * 32},
        "passes": [
            {"name": "clean", "counts": {"dead": 3}, "nodes_before": 6, "nodes_after": 3},
        ],
        "evidence": {
            "verification": {
                "verified": True,
                "reference": "the source module on PyTorch",
                "tolerance": {"sqnr_db": 70.0, "relative": 1e-3},
                "trials": [
                    {
                        "sizes": {"batch": 2},
                        "outputs": [
                            {"output": "y", "max_abs": 2.4e-7, "cosine": 1.0, "sqnr_db": 139.6}
                        ],
                    },
                    {
                        "sizes": {"batch": 3},
                        "outputs": [
                            {"output": "y", "max_abs": 0.0, "cosine": 1.0, "sqnr_db": None}
                        ],
                    },
                ],
            },
            "placement": {"ort-cpu": {"CPUExecutionProvider": 3}},
            "tools": {"python": "3.11.7", "onnxruntime": "1.31.1"},
        },
    }


@pytest.fixture
def linear_artifact(tmp_path: Path) -> Path:
    """`y = relu(x @ w + b)`, x [batch 1..8, 64], weights in a section of their own."""
    weights = linear_weights()
    graph = onnx.parser.parse_model(LINEAR).SerializeToString()
    data = b"".join(array.tobytes() for array in weights.values())
    path = tmp_path / "linear.lepton"
    with stage_artifact(path) as staged:
        sections = [
            SectionData("ort-cpu/graph", len(graph), lambda: [graph]),
            SectionData("weights", len(data), lambda: [data]),
        ]
        staged.write(sections, linear_manifest(weights))
        staged.commit()
    return path


@pytest.fixture
def linear_onnx(tmp_path: Path) -> Path:
    """The same model as an .onnx file with its weights inside."""
    return save_onnx(tmp_path / "linear.onnx", LINEAR, linear_weights())


@pytest.fixture
def onnx_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write a model given as ONNX text."""
    return lambda text: save_onnx(tmp_path / "model.onnx", text, {})


def save_onnx(path: Path, text: str, weights: dict[str, np.ndarray]) -> Path:
    model = onnx.parser.parse_model(text)
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path.write_bytes(model.SerializeToString())
    return path
