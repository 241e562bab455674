"""ONNX Runtime on a GPU: built, placed, proven and bound, on the GPU that is here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leptonc.compiler.driver import compile_model
from leptonc.compiler.settings.resolve import resolve_settings
from leptonc.runtime import load
from leptonc.runtime.engines.ort.cuda_provider import CUDA

ROOT = Path(__file__).resolve().parents[2]
IMAGES = np.linspace(0, 1, 3 * 64, dtype=np.float32).reshape(3, 1, 8, 8)


@pytest.fixture(scope="module", params=["fp32", "fp16", "bf16"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cuda") / f"digits-{request.param}.lepton"
    flags = {"target": ("ort-cuda",), "precision": request.param, "output": path}
    compile_model(resolve_settings(str(ROOT / "models" / "digits_cnn.py"), flags))
    return path


def test_the_engine_has_run_and_every_float_is_on_the_gpu(artifact):
    with load(artifact, device="gpu") as session:
        evidence = session.manifest["evidence"]
        variant = evidence["verification"]["variants"][0]
        placement = evidence["placement"][session.variant]
    assert variant["engine_ran"] is True
    assert sum(placement[CUDA].values()) > 0


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_bound_runs_give_what_calls_give(artifact, cuda_graphs):
    with load(artifact, device="gpu", cuda_graphs=cuda_graphs) as session:
        name = session.signature.inputs[0].name
        binding = session.bind({name: IMAGES.copy()})
        for scale in (1.0, 0.5, 0.25, 1.0):
            binding.inputs[name][...] = IMAGES * np.float32(scale)
            bound = {key: value.copy() for key, value in binding.run().items()}
            called = session.run({name: IMAGES * np.float32(scale)})
            for key, value in called.items():
                np.testing.assert_allclose(bound[key], value, rtol=1e-3, atol=1e-3)
