"""TensorRT's row in `BACKENDS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leptonc.backends.base import TargetRow
from leptonc.backends.row import BackendRow
from leptonc.backends.tensorrt.options import TensorRTOptions

if TYPE_CHECKING:
    from leptonc.backends.base import Backend


def _load() -> Backend:
    from leptonc.backends.tensorrt.backend import TensorRTBackend

    return TensorRTBackend()


ROW = BackendRow(
    "tensorrt",
    (
        TargetRow(
            "tensorrt", "gpu", "primitive", "tensorrt", standard_operators=True, needs_ranges=True
        ),
    ),
    _load,
    TensorRTOptions,
)
