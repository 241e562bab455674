"""An engine on one device as far as it can be told without importing it; public.

A distribution adds an engine with one entry point of the group `leptonc.engines`, named
"<backend>-<device>", that is an `EngineRow`:

    [project.entry-points."leptonc.engines"]
    acme-gpu = "acme_leptonc.row:ROW"

    ROW = EngineRow("acme", "gpu", target="acme", load=load)

`load` imports what opens variants (`leptonc.runtime.engines.base.Loader`). Nothing is imported
before an artifact has a variant of that backend and it is the one to open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leptonc.runtime.engines.base import Loader


@dataclass(frozen=True)
class Library:
    """A library whose version decides what loads.

    Attributes:
        name: A key of `Host.engines`, and the option of `leptonc check` that says its version.
        title: What people call it.
        example: A version.
    """

    name: str
    title: str
    example: str


@dataclass(frozen=True)
class EngineRow:
    """An engine on one device, as far as it can be told without importing it.

    The demands of its variants are those of a graph (docs/artifact-format.md); what else stands
    there is in `Demands.own`, for the loader to check.

    Attributes:
        backend: The variants that it takes: as manifests spell it.
        device: "cpu" or "gpu".
        target: What to compile for with `-t` to get such a variant.
        load: Imports what opens them, and returns it.
        libraries: Those that `leptonc check` asks for.
    """

    backend: str
    device: str
    target: str
    load: Callable[[], Loader]
    libraries: tuple[Library, ...] = ()
