"""One row for each backend, and the way from the name of a target to its backend."""

from __future__ import annotations

from collections.abc import Iterator

from leptonc.backends.base import Backend, Target
from leptonc.backends.errors import PluginError, UnsupportedTargetError
from leptonc.backends.ort.row import ROW as ORT
from leptonc.backends.plugins import installed_rows
from leptonc.backends.row import BackendRow
from leptonc.backends.tensorrt.row import ROW as TENSORRT

BACKENDS: tuple[BackendRow, ...] = (ORT, TENSORRT)
# Named in the plans, so that asking for one is not told to be a spelling mistake.
PLANNED_TARGETS = ("openvino",)
REQUIREMENTS = ("portable", "native")


def all_rows() -> Iterator[BackendRow]:
    """Give our rows, then those that other distributions bring, which are read only then.

    Raises:
        PluginError: The next of them cannot be used.
    """
    yield from BACKENDS
    for _, row in installed_rows(BACKENDS):
        if isinstance(row, PluginError):
            raise row
        yield row


def parse_target(text: str, *, precision: str = "fp32", require: str | None = None) -> Target:
    """Read the name of a target: "ort-cpu".

    Raises:
        UnsupportedTargetError: There is no such target, or an unknown requirement.
        PluginError: It is none of ours, and a backend of others cannot be used.
    """
    if require not in (None, *REQUIREMENTS):
        raise UnsupportedTargetError(
            f"{require!r} is not something an artifact can require",
            fix=f"use one of: {', '.join(REQUIREMENTS)}",
        )
    names = []
    for row in all_rows():
        for target in row.targets:
            if target.name == text:
                options = row.options() if row.options else None
                return Target(row.name, target, precision, require or "portable", options)
            names.append(target.name)
    if text in PLANNED_TARGETS:
        raise UnsupportedTargetError(
            f"this version of leptonc does not build for {text!r} yet", fix=f"use {names[0]}"
        )
    raise UnsupportedTargetError(f"{text!r} is not a target", fix=f"use one of: {', '.join(names)}")


def find_row(name: str) -> BackendRow | None:
    """Return the row of a backend by the name that manifests have, or None where it is unknown.

    Raises:
        PluginError: It is none of ours, and a backend of others cannot be used.
    """
    return next((row for row in all_rows() if row.name == name), None)


def find_backend(target: Target) -> Backend:
    """Return the backend that builds for `target`.

    Raises:
        UnsupportedTargetError: There is none, or it lacks the device or precision.
        PluginError: It is none of ours, and a backend of others cannot be used.
    """
    row = find_row(target.backend)
    if row is None:
        raise UnsupportedTargetError(
            f"there is no backend {target.backend!r}",
            where=target.name,
            fix=f"use one of: {', '.join(row.name for row in all_rows())}",
        )
    backend = row.load()
    refused = backend.supports(target)
    if refused is not None:
        raise UnsupportedTargetError(refused.reason, where=target.name, fix=refused.fix)
    return backend
