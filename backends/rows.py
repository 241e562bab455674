"""One row for each backend, and the way from the name of a target to its backend."""

from __future__ import annotations

from leptonc.backends.base import Backend, Target
from leptonc.backends.errors import UnsupportedTargetError
from leptonc.backends.ort.row import ROW as ORT
from leptonc.backends.row import BackendRow
from leptonc.backends.tensorrt.row import ROW as TENSORRT

BACKENDS: tuple[BackendRow, ...] = (ORT, TENSORRT)
# Named in the plans, so that asking for one is not told to be a spelling mistake.
PLANNED_TARGETS = ("openvino",)
REQUIREMENTS = ("portable", "native")


def parse_target(text: str, *, precision: str = "fp32", require: str | None = None) -> Target:
    """Read the name of a target: "ort-cpu".

    Raises:
        UnsupportedTargetError: There is no such target, or an unknown requirement.
    """
    if text in PLANNED_TARGETS:
        raise UnsupportedTargetError(
            f"this version of leptonc does not build for {text!r} yet", fix="use ort-cpu"
        )
    if require not in (None, *REQUIREMENTS):
        raise UnsupportedTargetError(
            f"{require!r} is not something an artifact can require",
            fix=f"use one of: {', '.join(REQUIREMENTS)}",
        )
    for row in BACKENDS:
        for target in row.targets:
            if target.name == text:
                options = row.options() if row.options else None
                return Target(row.name, target, precision, require or "portable", options)
    names = [target.name for row in BACKENDS for target in row.targets]
    raise UnsupportedTargetError(f"{text!r} is not a target", fix=f"use one of: {', '.join(names)}")


def find_backend(target: Target) -> Backend:
    """Return the backend that builds for `target`.

    Raises:
        UnsupportedTargetError: There is none, or it lacks the device or precision.
    """
    for row in BACKENDS:
        if row.name != target.backend:
            continue
        backend = row.load()
        reason = backend.supports(target)
        if reason is not None:
            raise UnsupportedTargetError(reason, where=target.name, fix=_advice(target, reason))
        return backend
    raise UnsupportedTargetError(
        f"there is no backend {target.backend!r}",
        where=target.name,
        fix=f"use one of: {', '.join(row.name for row in BACKENDS)}",
    )


def _advice(target: Target, reason: str) -> str:
    if reason.startswith("--sm"):
        return "name others, or leave it out"
    if reason.startswith("--"):
        return "leave it out, or use --flavour classic on the machine with the GPU"
    if target.precision != "fp32":
        return "use -p fp32, or a target that computes so: -t ort-cuda takes fp16 and bf16"
    return "use the target ort-cpu"
