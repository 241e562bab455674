"""ONNX Runtime's row in `BACKENDS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leptonc.backends.base import TargetRow
from leptonc.backends.row import BackendRow

if TYPE_CHECKING:
    from leptonc.backends.base import Backend


def _load() -> Backend:
    from leptonc.backends.ort.backend import OrtBackend

    return OrtBackend()


ROW = BackendRow(
    "ort",
    (
        TargetRow("ort-cpu", "cpu", "ort-cpu", "ort", timed=True),
        TargetRow("ort-cuda", "gpu", "ort-cuda", "gpu"),
    ),
    _load,
    substitutes={"onnxruntime": "onnxruntime-gpu"},
)
