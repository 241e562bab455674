"""Tiny models in float16 and bfloat16: as near to the module as PyTorch's own half-width module.

The graph is run as the engine of a GPU runs it, sums in float32 and every result rounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from architectures import TINY_MODELS
from measure import Subject

from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.verification.comparison import compare_outputs
from leptonc.passes import optimize
from leptonc.passes.pipeline import Context, run_passes
from leptonc.passes.precision.emulation import emulate_half
from leptonc.passes.precision.precision import Precision
from leptonc.passes.schedule import MERGE
from leptonc.passes.targets import ORT_CUDA, PRIMITIVE

NAMES = (
    *("bert_eager", "llama_cache_sdpa", "t5_sdpa", "swin_eager", "resnet_none"),
    "mobilenet_v2_none",
)
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
# One bit: roundings fall on other values.
SLACK_DB = 6.0


@pytest.fixture(scope="module", params=NAMES)
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject.of(TINY_MODELS[request.param])


def worst(expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> float:
    errors = compare_outputs(expected, got, Tolerance())
    assert all(error.sqnr_db is None or error.sqnr_db > -math.inf for error in errors)
    return min((e.sqnr_db for e in errors if e.sqnr_db is not None), default=math.inf)


def of_pytorch(subject: Subject, dtype: torch.dtype) -> float:
    """Return the SQNR that the module has when all of it is in `dtype`."""
    module = subject.tiny.build().to(dtype)
    found = math.inf
    for trial in subject.trials:
        inputs = {name: torch.from_numpy(array.copy()) for name, array in trial.inputs.items()}
        half = {n: v.to(dtype) if v.is_floating_point() else v for n, v in inputs.items()}
        with torch.no_grad():
            answer = module(**half)
        values = answer.values() if isinstance(answer, dict) else answer
        flat = (answer,) if isinstance(answer, torch.Tensor) else tuple(values)
        named = zip(trial.expected, flat, strict=True)
        found = min(found, worst(trial.expected, {name: v.float().numpy() for name, v in named}))
    return found


@pytest.mark.parametrize("target", [ORT_CUDA, PRIMITIVE])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_is_as_near_as_the_module_in_that_type(subject, target, precision):
    model = subject.exported.model.clone()
    optimize(model, target=target, upto=MERGE)
    narrow = Precision(precision)
    run_passes(model, (narrow,), Context(target))
    optimize(model, target=target)
    assert run_passes(model.clone(), (narrow,), Context(target))[0].changed == 0
    runner = GraphRunner(emulate_half(model))
    ours = min(worst(trial.expected, runner(trial.inputs)) for trial in subject.trials)
    assert ours >= of_pytorch(subject, PRECISIONS[precision]) - SLACK_DB
    products = [n for n in model.graph.all_nodes() if n.op_type in ("MatMul", "Gemm", "Conv")]
    narrowed = [n for n in products if n.outputs[0].dtype == narrow_type(precision)]
    # On CUDA, bfloat16 convolutions need an opset for which other kernels are missing.
    if not (target == ORT_CUDA and precision == "bf16"):
        assert len(narrowed) >= 0.9 * len(products)


def narrow_type(precision: str):
    from leptonc.passes.precision.half_types import HALF_TYPES

    return HALF_TYPES[precision].dtype
