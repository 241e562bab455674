from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Tests share `small_artifacts`; in pytest's importlib mode their folder is not on the path.
sys.path.append(str(Path(__file__).parent))

from small_artifacts import build_linear  # noqa: E402


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    """y = x @ w + b with x float32 [batch, 32], batch 1 to 8, and y [batch, 16]."""
    return build_linear(tmp_path)
