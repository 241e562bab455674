"""Our engines and loaders have all that the protocol asks for, under the same names."""

from __future__ import annotations

import inspect

import pytest

from leptonc.runtime.engines.base import Engine, Loader
from leptonc.runtime.engines.loaders import ROWS
from leptonc.runtime.engines.ort.cpu import OrtEngine
from leptonc.runtime.engines.ort.cuda import CudaEngine
from leptonc.runtime.engines.tensorrt.engine import TensorRTEngine


def methods(protocol: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(found)
        for name, found in vars(protocol).items()
        if inspect.isfunction(found) and not name.startswith("_")
    }


@pytest.mark.parametrize("engine", [OrtEngine, CudaEngine, TensorRTEngine])
def test_an_engine_answers_to_the_protocol(engine: type) -> None:
    assert {"run", "start", "bind", "run_bound", "on_gpu", "finish", "close"} == set(
        methods(Engine)
    )
    for name, wanted in methods(Engine).items():
        found = inspect.signature(getattr(engine, name))
        assert list(found.parameters) == list(wanted.parameters), name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.backend}-{row.device}")
def test_a_loader_answers_to_the_protocol(row) -> None:
    loader = type(row.load())
    for name, wanted in methods(Loader).items():
        assert list(inspect.signature(getattr(loader, name)).parameters) == list(wanted.parameters)
