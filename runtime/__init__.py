"""Load a compiled model and run it: arrays in, arrays out; needs NumPy and one engine.

    from leptonc.runtime import load

    session = load("model.lepton")
    outputs = session(x=array)

What loads is itself imported when it is first asked for: a service that imports this module to
catch its errors pays for the errors alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leptonc.runtime import errors
from leptonc.runtime.errors import *  # noqa: F403 - their tree is drawn there, and all of it is public

if TYPE_CHECKING:
    from leptonc.runtime.artifact.signature import Dim, Signature, TensorSpec
    from leptonc.runtime.session import Session, load

__all__ = [*errors.__all__, "Dim", "Session", "Signature", "TensorSpec", "load"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Import what loads and describes models when it is first used."""
    if name in ("Session", "load"):
        from leptonc.runtime import session

        return getattr(session, name)
    if name in ("Dim", "Signature", "TensorSpec"):
        from leptonc.runtime.artifact import signature

        return getattr(signature, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
