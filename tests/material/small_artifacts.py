"""Artifacts made for tests: raw bytes to damage, and small models built through the backend."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.backends import find_backend, parse_target
from leptonc.backends.pack import pack
from leptonc.runtime.artifact.layout import CHUNK
from leptonc.runtime.artifact.writer import SectionData, stage_artifact

BATCH = {"name": "batch", "min": 1, "max": 8}

# y = x @ w + b; the weight is large enough to be stored outside the graph.
LINEAR = """
<ir_version: 10, opset_import: ["" : 20]>
linear (float[batch, 32] x) => (float[batch, 16] y) {
  p = MatMul(x, w)
  y = Add(p, b)
}
"""


def linear_weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    return {
        "w": generator.standard_normal((32, 16)).astype(np.float32),
        "b": generator.standard_normal(16).astype(np.float32),
    }


def parse(text: str, weights: Mapping[str, np.ndarray] | None = None) -> ir.Model:
    """Read ONNX text; `weights` become initialisers of the main graph."""
    model = ir.from_onnx_text(text)
    for name, array in (weights or {}).items():
        uses = [
            (node, index)
            for node in model.graph.all_nodes()
            for index, value in enumerate(node.inputs)
            if value is not None and value.name == name
        ]
        tensor = ir.Tensor(array, name=name)
        value = ir.Value(
            name=name,
            const_value=tensor,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
        )
        for node, index in uses:
            node.replace_input_with(index, value)
        model.graph.initializers[name] = value
    return model


def spec(name: str, dtype: str, *shape: int | dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def manifest(
    inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], **changes: Any
) -> dict[str, Any]:
    return {
        "leptonc": "0.1.0",
        "name": "test",
        "signature": {"inputs": inputs, "outputs": outputs},
        "source": {"kind": "test", "fingerprint": "0"},
        "passes": [],
        "evidence": {},
        **changes,
    }


def build(
    path: Path,
    model: ir.Model,
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    workdir: Path,
    change: Callable[[dict[str, Any]], object] | None = None,
    require: str | None = None,
) -> Path:
    """Compile `model` for ONNX Runtime and write it; `change` may edit the variant's entry."""
    target = parse_target("ort-cpu", require=require)
    sections, variants = pack([find_backend(target).build(model, target, workdir)])
    if change is not None:
        change(variants[0])
    with stage_artifact(path) as staged:
        staged.write(sections, manifest(inputs, outputs, variants=variants))
        staged.commit()
    return path


def build_linear(folder: Path) -> Path:
    """Write a small linear layer with a dynamic batch of 1 to 8."""
    return build(
        folder / "linear.lepton",
        parse(LINEAR, linear_weights()),
        [spec("x", "float32", BATCH, 32)],
        [spec("y", "float32", BATCH, 16)],
        folder / "work",
    )


def expected(x: np.ndarray) -> np.ndarray:
    weights = linear_weights()
    return x @ weights["w"] + weights["b"]


def sample(rows: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 32)).astype(np.float32)


def linear_with(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    return build(
        tmp_path / "m.lepton",
        parse(LINEAR, linear_weights()),
        [spec("x", "float32", BATCH, 32)],
        [spec("y", "float32", BATCH, 16)],
        tmp_path / "work",
        change=change,
    )


class RawArtifact:
    """The parts of an artifact's bytes, each of which a test may replace with nonsense."""

    def __init__(self) -> None:
        self.magic = b"\x93LEPTON\x01"
        self.header_length: int | None = None
        self.padding = b"\0"
        self.tail = b""
        self.sections: dict[str, bytes] = {"g/graph": b"graph", "weights": bytes(range(64)) * 80}
        self.manifest: dict[str, Any] = manifest(
            [spec("x", "float32", BATCH, 2)],
            [spec("y", "float32", BATCH, 2)],
            variants=[
                {
                    "name": "g",
                    "backend": "ort",
                    "device": "cpu",
                    "precision": "fp32",
                    "demands": {
                        "engine": "onnxruntime",
                        "engine_min": "1.0",
                        "opset": 20,
                        "instructions": [],
                    },
                    "graph": "g/graph",
                    "options": {},
                    "weights": [
                        {
                            "name": "w",
                            "dtype": "float32",
                            "shape": [4, 8],
                            "section": "weights",
                            "offset": 64,
                            "length": 128,
                        }
                    ],
                }
            ],
        )
        self.manifest_text: bytes | None = None
        self.edit: Callable[[dict[str, Any]], object] = lambda header: None
        self.header_text: Callable[[dict[str, Any]], bytes] = canonical

    @property
    def weight(self) -> dict[str, Any]:
        return self.manifest["variants"][0]["weights"][0]

    def to_bytes(self) -> bytes:
        text = self.manifest_text
        parts = {**self.sections, "manifest": text or canonical(self.manifest)}
        offset, entries, body = 4096, [], b""
        for name, data in parts.items():
            padded = -(-offset // 4096) * 4096
            body += self.padding * (padded - offset) + data
            entries.append(
                {
                    "name": name,
                    "offset": padded,
                    "length": len(data),
                    "sha256": [
                        hashlib.sha256(data[start : start + CHUNK]).hexdigest()
                        for start in range(0, len(data), CHUNK)
                    ],
                }
            )
            offset = padded + len(data)
        header = {"format": 1, "requires": [], "sections": entries}
        self.edit(header)
        encoded = self.header_text(header).ljust(4080, b" ")
        length = len(encoded) if self.header_length is None else self.header_length
        return self.magic + length.to_bytes(8, "little") + encoded + body + self.tail


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# The smallest valid manifest, canonical.
TINY: dict[str, Any] = {
    "leptonc": "0",
    "name": "n",
    "signature": {"inputs": [], "outputs": [{"dtype": "bool", "name": "y", "shape": []}]},
    "variants": [
        {
            "backend": "ort",
            "demands": {"engine": "e", "engine_min": "1", "instructions": [], "opset": 1},
            "device": "cpu",
            "graph": "g",
            "name": "v",
            "options": {},
            "precision": "fp32",
            "weights": [],
        }
    ],
}


def section(name: str, data: bytes, *, pieces: int = 1) -> SectionData:
    size = -(-len(data) // pieces) or 1
    return SectionData(
        name, len(data), lambda: (data[i : i + size] for i in range(0, len(data), size))
    )


def write(path: Path, sections: list[SectionData], manifest: dict[str, Any]) -> bytes:
    with stage_artifact(path) as staged:
        staged.write(sections, manifest)
        assert staged.commit() == path.stat().st_size
    return path.read_bytes()
