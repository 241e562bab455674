"""Passes of other distributions, found through the entry-point group `leptonc.passes`.

The name of an entry point is the name of its pass. It refers to a `Pass`, or to a class or
function that makes one; `docs/writing-a-pass.md` has a complete example. Plugins are loaded in the order of
their names and run after the passes of their stage. Each is held to what our own passes promise:
the graph is valid after it and keeps its interface, and what it changed it has counted. Whatever
goes wrong is said with the entry point and the distribution it came from.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import onnx_ir as ir

from leptonc.passes.base import PassStats, Refusal
from leptonc.passes.errors import PluginError
from leptonc.passes.graph.structure import all_nodes, count_nodes, graphs, roots
from leptonc.passes.graph.validity import Interface, find_problem
from leptonc.passes.pipeline import Context, Pass, obstacle
from leptonc.passes.targets import TARGETS
from leptonc.runtime.errors import LeptonError

GROUP = "leptonc.passes"
STAGE_NAMES = ("canonical", "fuse", "merge", "lower")
DEFAULT_STAGE = "fuse"


@dataclass(frozen=True)
class Plugin:
    """A pass that another distribution brings.

    Attributes:
        name: Of the entry point and of the pass.
        distribution: Who brings it.
        version: Of the distribution.
        reference: Where it is, as `module:attribute`.
        stage: One of `STAGE_NAMES`: after which passes it runs.
        targets: What it is for, a subset of `TARGETS`.
        make: Makes it, anew for each run.
    """

    name: str
    distribution: str
    version: str
    reference: str
    stage: str
    targets: frozenset[str]
    make: Callable[[], Any]

    @property
    def origin(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}"

    def to_json(self) -> dict[str, str]:
        """Return what the manifest records."""
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "stage": self.stage,
        }


def load_plugins(reserved: Collection[str] = ()) -> tuple[Plugin, ...]:
    """Import every plugin that is installed, sorted by name.

    Args:
        reserved: Names that no plugin may have: those of our own passes.

    Raises:
        PluginError: One cannot be imported, is no pass, or has a name that is taken.
    """
    found = sorted(metadata.entry_points(group=GROUP), key=lambda each: (each.name, _origin(each)))
    for first, second in itertools.pairwise(found):
        if first.name == second.name:
            raise _refusal(second, f"the name {first.name!r} is taken by {_origin(first)}")
    for entry in found:
        if entry.name in reserved:
            raise _refusal(entry, f"the name {entry.name!r} is that of a pass of leptonc")
    return tuple(_load(entry) for entry in found)


def plugin_passes(plugins: Iterable[Plugin], stage: str, target: str) -> tuple[Pass, ...]:
    """Return the passes of `plugins` that run in `stage` for `target`, in their order."""
    return tuple(
        _Guarded(plugin) for plugin in plugins if plugin.stage == stage and target in plugin.targets
    )


def _load(entry: metadata.EntryPoint) -> Plugin:
    try:
        loaded = entry.load()
    # The code of others may raise anything, also SystemExit, when it is imported.
    except (Exception, SystemExit) as error:
        raise _refusal(entry, f"it cannot be imported: {_text(error)}") from error
    make = loaded if callable(loaded) else lambda: loaded
    try:
        example = make()
    except (Exception, SystemExit) as error:
        raise _refusal(entry, f"it cannot be made: {_text(error)}") from error
    _check_pass(entry, example)
    stage = getattr(example, "stage", DEFAULT_STAGE)
    if stage not in STAGE_NAMES:
        raise _refusal(entry, f"its stage {stage!r} is not one of {', '.join(STAGE_NAMES)}")
    targets = getattr(example, "targets", TARGETS)
    if not isinstance(targets, Collection) or not targets or set(targets) - set(TARGETS):
        raise _refusal(entry, f"its targets {targets!r} are not some of {', '.join(TARGETS)}")
    name, version = _distribution(entry)
    return Plugin(entry.name, name, version, entry.value, stage, frozenset(targets), make)


def _check_pass(entry: metadata.EntryPoint, example: object) -> None:
    kind = type(example).__name__
    if not callable(getattr(example, "run", None)):
        raise _refusal(entry, f"{kind} is not a pass: it has no method run(model, context)")
    name = getattr(example, "name", None)
    if name != entry.name:
        raise _refusal(entry, f"the pass calls itself {name!r}, the entry point {entry.name!r}")


@dataclass(frozen=True)
class _Guarded:
    """A plugin's pass whose every failure names the plugin."""

    plugin: Plugin

    @property
    def name(self) -> str:
        """That of the plugin."""
        return self.plugin.name

    def run(self, model: ir.Model, context: Context) -> PassStats:
        """Run the plugin's pass and check what it left; one that cannot run is a near miss."""
        return _run(self.plugin, model, context)


def _run(plugin: Plugin, model: ir.Model, context: Context) -> PassStats:
    interface, before, nodes = Interface.of(model.graph), _snapshot(model), count_nodes(model)
    try:
        made = plugin.make()
        reason = obstacle(made, model)
        stats = None if reason else made.run(model, context)
    except (Exception, SystemExit) as error:
        raise _failure(plugin, f"failed: {_text(error)}") from error
    if reason:
        return PassStats(plugin.name, (), nodes, nodes, (Refusal("", str(reason)),))
    if not isinstance(stats, PassStats) or stats.name != plugin.name:
        raise _failure(plugin, f"returned {stats!r} where the PassStats of {plugin.name!r} belong")
    problem = find_problem(model)
    if problem is not None:
        raise _failure(plugin, f"left an invalid graph: {problem.what}", problem.where)
    after = Interface.of(model.graph)
    if interface != after:
        raise _failure(
            plugin, "changed the interface of the graph", f"before {interface}, after {after}"
        )
    if not stats.changed and not _same(before, _snapshot(model)):
        raise _failure(plugin, "changed the graph and counted no change")
    return stats


def _snapshot(model: ir.Model) -> list[object]:
    """Return all that a pass may change, in order; held, so that no identity is used again."""
    found: list[object] = []
    for node in all_nodes(model):
        found += (node, node.op_type, node.domain, *node.inputs, *node.attributes.values())
    for root in roots(model):
        for graph in graphs(root.graph):
            found.extend(graph.outputs)
            found += (value.const_value for value in graph.initializers.values())
    return found


def _same(before: Sequence[object], after: Sequence[object]) -> bool:
    if len(before) != len(after):
        return False
    pairs = zip(before, after, strict=True)
    return all(a is b or (isinstance(a, str) and a == b) for a, b in pairs)


def _distribution(entry: metadata.EntryPoint) -> tuple[str, str]:
    if entry.dist is None:
        return "an unknown distribution", ""
    return entry.dist.name, entry.dist.version


def _origin(entry: metadata.EntryPoint) -> str:
    return " ".join(_distribution(entry)).strip()


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error.what if isinstance(error, LeptonError) else error}"


def _refusal(entry: metadata.EntryPoint, what: str) -> PluginError:
    return PluginError(
        f"the plugin {entry.name!r} cannot be used: {what}",
        where=f"{_origin(entry)}, entry point {entry.name} = {entry.value}",
        fix=f"correct or uninstall {_distribution(entry)[0]}, or compile with --without-plugins",
    )


def _failure(plugin: Plugin, what: str, where: str = "") -> PluginError:
    place = f"{plugin.origin}, entry point {plugin.name} = {plugin.reference}"
    return PluginError(
        f"the plugin {plugin.name!r} {what}",
        where=f"{place}; {where}" if where else place,
        fix=f"report it to the authors of {plugin.distribution}, or compile with --without-plugins",
    )
