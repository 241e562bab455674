"""What a pass is, and how passes run: one after the other, on a graph that is valid around each.

A pass is a frozen dataclass whose fields are its options; what it is run for, and what is known of
the values, is the context of the run. It rewrites the graph and never runs the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.errors import ModelError, PassError, PassRefusedError
from leptonc.passes.facts.facts import Facts, infer_facts
from leptonc.passes.graph.structure import all_nodes
from leptonc.passes.graph.validity import Interface, find_problem
from leptonc.passes.targets import GENERIC

STAMP = "leptonc.pass"

_Fingerprint = tuple[str, str, tuple[ir.Value | None, ...], tuple[ir.Attr, ...]]


@dataclass(frozen=True)
class Context:
    """What a pass is told of the run that it is part of.

    Attributes:
        target: What the model is rewritten for, one of `leptonc.passes.TARGETS`.
        facts: What is known of the values of the model as it is, or None to infer it.
    """

    target: str = GENERIC
    facts: Facts | None = None

    def known(self, model: ir.Model) -> Facts:
        """Return the facts, inferred from `model` when they were not given."""
        return infer_facts(model) if self.facts is None else self.facts


class Pass(Protocol):
    """A rewrite of an `onnx_ir.Model` in place."""

    @property
    def name(self) -> str:
        """Lower case with hyphens."""
        ...

    def run(self, model: ir.Model, context: Context, /) -> PassStats:
        """Rewrite `model` in place and say what was done."""
        ...


@runtime_checkable
class Demanding(Pass, Protocol):
    """A pass that cannot run on every model."""

    def requires(self, model: ir.Model) -> str | None:
        """Return why this pass cannot run on `model`, or None when it can."""
        ...


def obstacle(step: Pass, model: ir.Model) -> str | None:
    """Return why `step` cannot run on `model`, or None when it can."""
    return step.requires(model) if isinstance(step, Demanding) else None


def run_passes(
    model: ir.Model, passes: Sequence[Pass], context: Context = Context()
) -> tuple[PassStats, ...]:
    """Run `passes` in order on `model`, in place.

    A node that a pass created or changed carries the name of the last such pass in
    `metadata_props["leptonc.pass"]`, so that a difference can be traced to it.

    Raises:
        ModelError: `model` is invalid before the first pass.
        PassRefusedError: A pass cannot run on this model.
        PassError: A pass left an invalid graph or changed its interface.
    """
    require_valid(model)
    return run_on_valid(model, passes, context)


def run_on_valid(
    model: ir.Model, passes: Sequence[Pass], context: Context = Context()
) -> tuple[PassStats, ...]:
    """Run `passes` as `run_passes` does on a model that is known to be valid.

    Raises:
        PassRefusedError: A pass cannot run on this model.
        PassError: A pass left an invalid graph or changed its interface.
    """
    interface = Interface.of(model.graph)
    before = _fingerprints(model)
    results: list[PassStats] = []
    for step in passes:
        reason = obstacle(step, model)
        if reason is not None:
            raise PassRefusedError(f"pass {step.name!r} cannot run on this model: {reason}")
        stats = step.run(model, context)
        if stats.changed or not _is_ours(step):
            _check_exit(model, step.name, interface)
            after = _fingerprints(model)
            results.append(_stamp(stats, before, after) if stats.changed else stats)
            before = after
        else:
            results.append(stats)
    return tuple(results)


def _is_ours(step: Pass) -> bool:
    """Whether `step` is known to change nothing when it counts nothing."""
    return type(step).__module__.startswith("leptonc.passes.")


def _fingerprints(model: ir.Model) -> dict[ir.Node, _Fingerprint]:
    return {node: _fingerprint(node) for node in all_nodes(model)}


def require_valid(model: ir.Model) -> None:
    """Refuse a model that is not valid ONNX.

    Raises:
        ModelError: With the first problem.
    """
    problem = find_problem(model)
    if problem is not None:
        raise ModelError(
            f"the model is not valid ONNX: {problem.what}",
            where=problem.where,
            fix="check the file with onnx.checker.check_model, or export it again",
        )


def _check_exit(model: ir.Model, name: str, interface: Interface) -> None:
    problem = find_problem(model)
    if problem is not None:
        raise PassError(
            f"pass {name!r} left an invalid graph: {problem.what}",
            where=problem.where,
            fix="this is a bug in leptonc: please report it with the model",
        )
    after = Interface.of(model.graph)
    for kind, old, new in (
        ("inputs", interface.inputs, after.inputs),
        ("outputs", interface.outputs, after.outputs),
    ):
        if old != new:
            raise PassError(
                f"pass {name!r} changed the {kind} of the graph",
                where=f"before {old}, after {new}",
                fix="this is a bug in leptonc: please report it with the model",
            )


def _fingerprint(node: ir.Node) -> _Fingerprint:
    return node.op_type, node.domain, tuple(node.inputs), tuple(node.attributes.values())


def _stamp(
    stats: PassStats,
    before: Mapping[ir.Node, _Fingerprint],
    after: Mapping[ir.Node, _Fingerprint],
) -> PassStats:
    """Put the name of the pass on the nodes that it made or changed, and say which they are."""
    rewritten: list[str] = []
    for node, new in after.items():
        old = before.get(node)
        if old is None or _differs(old, new):
            node.metadata_props[STAMP] = stats.name
            rewritten.append(node.name or "")
    removed = tuple(node.name or "" for node in before if node not in after)
    return replace(stats, removed=removed, rewritten=tuple(rewritten))


def _differs(old: _Fingerprint, new: _Fingerprint) -> bool:
    if old[:2] != new[:2] or len(old[2]) != len(new[2]) or len(old[3]) != len(new[3]):
        return True
    return any(a is not b for part in (2, 3) for a, b in zip(old[part], new[part], strict=True))
