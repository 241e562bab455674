from __future__ import annotations

from pathlib import Path

import pytest
from small_artifacts import build_linear


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    """y = x @ w + b with x float32 [batch, 32], batch 1 to 8, and y [batch, 16]."""
    return build_linear(tmp_path)
