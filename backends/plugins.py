"""Backends of other distributions, found through the entry-point group `leptonc.backends`.

An entry point refers to a `BackendRow`; `docs/writing-a-backend.md` has a complete example. They
are read when a name is asked for that is none of ours, or by the doctor, in the order of their
names. One that cannot be used is said with the distribution it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from leptonc.backends.errors import PluginError
from leptonc.backends.row import BackendRow
from leptonc.runtime.errors import LeptonError

if TYPE_CHECKING:
    from leptonc.backends.base import Backend

GROUP = "leptonc.backends"


def installed_rows(
    ours: Sequence[BackendRow],
) -> Iterator[tuple[metadata.EntryPoint, BackendRow | PluginError]]:
    """Give each entry point with its row, or with the error that says why it has none.

    Args:
        ours: Rows whose names, and whose targets' names, no other may take.
    """
    taken = {name: "leptonc" for row in ours for name in _names(row)}
    entries = metadata.entry_points(group=GROUP)
    for entry in sorted(entries, key=lambda each: (each.name, origin(each))):
        try:
            row = _load(entry)
        except PluginError as problem:
            yield entry, problem
            continue
        clash = next((name for name in _names(row) if name in taken), None)
        if clash is not None:
            yield entry, _refusal(entry, f"the name {clash!r} is taken by {taken[clash]}")
            continue
        taken |= dict.fromkeys(_names(row), origin(entry))
        yield entry, row


def origin(entry: metadata.EntryPoint) -> str:
    """Return the distribution of an entry point, and its version."""
    found = entry.dist
    return "an unknown distribution" if found is None else f"{found.name} {found.version}"


def _load(entry: metadata.EntryPoint) -> BackendRow:
    row = _run(entry, entry.load)
    if not isinstance(row, BackendRow):
        raise _refusal(entry, f"it is of type {type(row).__name__}, not a BackendRow")
    return replace(row, load=partial(_backend, entry, row.load))


def _backend(entry: metadata.EntryPoint, load: Callable[[], Backend]) -> Backend:
    backend: Backend = _run(entry, load)
    return backend


def _run(entry: metadata.EntryPoint, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except LeptonError:
        raise
    # The code of others may raise anything, also SystemExit, when it is imported.
    except (Exception, SystemExit) as error:
        said = f"it cannot be imported: {type(error).__name__}: {error}"
        raise _refusal(entry, said) from error


def _names(row: BackendRow) -> tuple[str, ...]:
    return tuple(dict.fromkeys((row.name, *(target.name for target in row.targets))))


def _refusal(entry: metadata.EntryPoint, what: str) -> PluginError:
    return PluginError(
        f"the backend {entry.name!r} cannot be used: {what}",
        where=f"{origin(entry)}, entry point {entry.name} = {entry.value}",
        fix=f"correct or uninstall {entry.dist.name if entry.dist else 'what brings it'}",
    )
