"""The plugins that are installed, from package metadata alone: none of their code is imported.

`leptonc.passes.plugins`, `leptonc.backends.plugins` and `leptonc.runtime.engines.loaders` load them;
this is for the doctor, which also works where the passes cannot be imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from rich.markup import escape
from rich.table import Table

GROUPS = ("leptonc.passes", "leptonc.backends", "leptonc.engines")


@dataclass(frozen=True)
class InstalledPlugin:
    """An entry point of one of `GROUPS`.

    Attributes:
        name: Of the pass, backend or engine.
        distribution: Who brings it.
        version: Of the distribution.
        reference: Where it is, as `module:attribute`.
    """

    name: str
    distribution: str
    version: str
    reference: str


def installed_plugins() -> tuple[InstalledPlugin, ...]:
    """Return what is installed, sorted by name."""
    found = (
        InstalledPlugin(
            entry.name,
            entry.dist.name if entry.dist else "unknown",
            entry.dist.version if entry.dist else "unknown",
            entry.value,
        )
        for group in GROUPS
        for entry in metadata.entry_points(group=group)
    )
    return tuple(sorted(found, key=lambda each: (each.name, each.distribution)))


def plugin_table(plugins: Sequence[InstalledPlugin]) -> Table:
    """Return them as a table."""
    table = Table("plugin", "from", "at", box=None, pad_edge=False)
    for each in plugins:
        origin = f"{each.distribution} {each.version}"
        table.add_row(escape(each.name), escape(origin), escape(each.reference))
    return table
