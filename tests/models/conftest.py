from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "models"

Predict = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@pytest.fixture(scope="session")
def recipe() -> Iterator[Callable[[str], ModuleType]]:
    """Load a recipe by path, as the compiler does: its folder comes first on sys.path."""
    entry = str(FOLDER)
    sys.path.insert(0, entry)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"tested_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look their own module up.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    yield load
    sys.path.remove(entry)


@pytest.fixture(scope="session")
def predictor() -> Callable[[torch.nn.Module], Predict]:
    """Turn a module into a function from arrays to arrays."""

    def wrap(module: torch.nn.Module) -> Predict:
        def predict(inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            with torch.no_grad():
                outputs = module(**{name: torch.from_numpy(a) for name, a in inputs.items()})
            return {name: tensor.numpy() for name, tensor in outputs.items()}

        return predict

    return wrap
