"""Artifacts with TensorRT variants, around real plans where TensorRT is installed."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx.parser
from small_artifacts import BATCH, LINEAR, linear_weights, manifest, parse, section, spec, write

from leptonc.backends import find_backend, parse_target
from leptonc.backends.pack import pack
from leptonc.runtime.machine import this_system

MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
small (float[batch, 4] x) => (float[batch, 2] y)
<float[4, 2] w = {1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0}> {
  h = MatMul(x, w)
  y = Relu(h)
}
"""


@functools.cache
def real_plan(*capabilities: str) -> bytes:
    """Return a plan that TensorRT for RTX builds here, without a GPU."""
    import tensorrt_rtx_bindings as trt

    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(onnx.parser.parse_model(MODEL).SerializeToString())
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        capability = getattr(trt.ComputeCapability, f"SM{name.replace('.', '')}")
        config.set_compute_capability(capability, index)
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (1, 4), (4, 4), (8, 4))
    config.add_optimization_profile(profile)
    return bytes(builder.build_serialized_network(network, config))


def sizes(low: list[int], best: list[int], high: list[int]) -> dict[str, list[int]]:
    return {"min": low, "opt": best, "max": high}


def demands(**changes: Any) -> dict[str, Any]:
    return {
        "engine": "tensorrt-rtx",
        "version": "1.7.1.116",
        "compute_capabilities": ["8.6", "8.9"],
        "os": this_system(),
        "profiles": [{"x": sizes([1, 4], [4, 4], [8, 4])}],
        "precision": "fp32",
        **changes,
    }


def plan_variant(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tensorrt",
        "backend": "tensorrt",
        "device": "gpu",
        "precision": "fp32",
        "demands": demands(),
        "graph": "tensorrt/graph",
        "options": {},
        "weights": [],
        **changes,
    }


def plan_artifact(path: Path, plan: bytes | None = None, **changes: Any) -> Path:
    """Write an artifact with one TensorRT variant; x float32 [batch, 4], y float32 [batch, 2]."""
    plan = real_plan("8.6", "8.9") if plan is None else plan
    write(
        path,
        [section("tensorrt/graph", plan)],
        manifest(
            [spec("x", "float32", BATCH, 4)],
            [spec("y", "float32", BATCH, 2)],
            variants=[plan_variant(**changes)],
        ),
    )
    return path


def two_variants(path: Path, change: Callable[[dict[str, Any]], object] | None = None) -> Path:
    """Write an artifact with a TensorRT variant and one for the CPU; y = x @ w + b.

    The plan is of another model: nothing here can load it.
    """
    with tempfile.TemporaryDirectory() as folder:
        payload = find_backend(parse_target("ort-cpu")).build(
            parse(LINEAR, linear_weights()), parse_target("ort-cpu"), Path(folder)
        )
        sections, variants = pack([payload])
        tensorrt = plan_variant(demands=demands(profiles=[{"x": sizes([1, 32], [4, 32], [8, 32])}]))
        if change is not None:
            change(tensorrt)
        plan = section("tensorrt/graph", real_plan("8.6", "8.9"))
        write(
            path,
            [plan, *sections],
            manifest(
                [spec("x", "float32", BATCH, 32)],
                [spec("y", "float32", BATCH, 16)],
                variants=[tensorrt, *variants],
            ),
        )
    return path
