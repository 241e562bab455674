"""Load a compiled model and run it: arrays in, arrays out.

    from leptonc.runtime import load

    session = load("model.lepton")
    outputs = session(x=array)

Needs NumPy and, from `load` on, one engine. Nothing here imports torch or onnx, and the code
that loads is itself imported when it is first asked for: a service that imports this module
to catch its errors pays for the errors alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leptonc.runtime.errors import (
    ArtifactError,
    DeviceMemoryError,
    EngineError,
    EngineMissingError,
    EnvironmentProblem,
    InputError,
    IntegrityError,
    LeptonError,
    MachineError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from leptonc.runtime.artifact.signature import Dim, Signature, TensorSpec
    from leptonc.runtime.session import Session, load

__all__ = [
    "ArtifactError",
    "DeviceMemoryError",
    "Dim",
    "EngineError",
    "EngineMissingError",
    "EnvironmentProblem",
    "InputError",
    "IntegrityError",
    "LeptonError",
    "MachineError",
    "Session",
    "Signature",
    "TensorSpec",
    "UnsupportedError",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import what loads and describes models when it is first used."""
    if name in ("Session", "load"):
        from leptonc.runtime import session

        return getattr(session, name)
    if name in ("Dim", "Signature", "TensorSpec"):
        from leptonc.runtime.artifact import signature

        return getattr(signature, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
