"""Builds optimised graphs for engines."""

from __future__ import annotations

from leptonc.backends.base import Backend, Payload, Target
from leptonc.backends.errors import UnsupportedTargetError
from leptonc.backends.ort.backend import OrtBackend
from leptonc.backends.tensorrt.backend import TensorRTBackend

BACKENDS: tuple[Backend, ...] = (OrtBackend(), TensorRTBackend())


def find_backend(target: Target) -> Backend:
    """Return the backend that builds for `target`.

    Raises:
        UnsupportedTargetError: There is none, or it lacks the device or precision.
    """
    for backend in BACKENDS:
        if backend.name != target.backend:
            continue
        reason = backend.supports(target)
        if reason is not None:
            raise UnsupportedTargetError(reason, where=target.name, fix=_advice(target, reason))
        return backend
    raise UnsupportedTargetError(
        f"there is no backend {target.backend!r}",
        where=target.name,
        fix=f"use one of: {', '.join(backend.name for backend in BACKENDS)}",
    )


def _advice(target: Target, reason: str) -> str:
    if reason.startswith("--sm"):
        return "name others, or leave it out"
    if reason.startswith("--"):
        return "leave it out, or use --flavour classic on the machine with the GPU"
    if target.precision != "fp32":
        return "use -p fp32, or a target that computes so: -t ort-cuda takes fp16 and bf16"
    return "use the target ort-cpu"


__all__ = ["BACKENDS", "Backend", "Payload", "Target", "find_backend"]
