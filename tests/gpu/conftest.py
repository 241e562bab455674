"""Tests that need a GPU; `make gpu-check` runs them. Without one there is nothing to test here."""

from __future__ import annotations

import pytest

from leptonc.runtime.engines.ort.cuda_provider import require_cuda
from leptonc.runtime.engines.ort.library import import_engine
from leptonc.runtime.errors import EnvironmentProblem


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the tests of this folder out where ONNX Runtime cannot use a GPU."""
    here = [item for item in items if "gpu" in item.path.parts]
    if not here:
        return
    try:
        require_cuda(import_engine())
    except EnvironmentProblem as problem:
        for item in here:
            item.add_marker(pytest.mark.skip(reason=problem.what))
