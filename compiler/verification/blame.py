"""After a failed proof: say which node is wrong, who changed it last, and whose line it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.compiler.errors import VerificationError
from leptonc.compiler.export.onnx_export import ExportedGraph
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.sources.source import Source
from leptonc.compiler.verification.first_difference import (
    Difference,
    blame,
    first_difference,
    graph_values,
    module_values,
)
from leptonc.compiler.verification.trials import Trial, TrialResult
from leptonc.passes.plugins import Plugin
from leptonc.passes.precision.emulation import emulate_half
from leptonc.runtime.errors import EngineError


@dataclass(frozen=True)
class Suspects:
    """All that may be to blame, from the source to what each engine was given.

    Attributes:
        source: The source, which is right by definition.
        exported: The graph as the exporter wrote it.
        optimised: The graph after our passes.
        lowered: Each variant's own graph by the name of its engine, built when asked for.
        tolerance: What counts as a difference.
        plugins: Who else rewrote the graph.
    """

    source: Source
    exported: ExportedGraph
    optimised: ir.Model
    lowered: tuple[tuple[str, Callable[[], ir.Model]], ...]
    tolerance: Tolerance
    plugins: tuple[Plugin, ...] = ()


def verification_failed(trial: Trial, result: TrialResult, suspects: Suspects) -> VerificationError:
    """Return the error for a trial that failed, with the first differing node named."""
    worst = next(error for error in result.errors if error.problem is not None)
    sizes = ", ".join(f"{name}={size}" for name, size in trial.sizes.items()) or "the example"
    found = locate(trial, suspects)
    where = str(found) if found else "no inner value differs by itself; only this output does"
    return VerificationError(
        f"the artifact is wrong at {sizes}: output {worst.output!r}: {worst.problem}",
        where=where,
        fix=_advice(found),
    )


def locate(trial: Trial, suspects: Suspects) -> Difference | None:
    """Look for the first wrong node in our graph, then in what each engine made of it."""
    values = (
        module_values(suspects.exported, trial.inputs)
        if suspects.source.graph is None
        else graph_values(suspects.source.graph, trial.inputs)
    )
    graphs: list[tuple[str | None, Callable[[], ir.Model]]] = [(None, lambda: suspects.optimised)]
    graphs.extend(suspects.lowered)
    origins = {plugin.name: plugin.origin for plugin in suspects.plugins}
    for engine, graph in graphs:
        try:
            # Values of the same names, in float32: the CPU that looks for it may have no half width.
            candidate = emulate_half(graph())
            found = first_difference(candidate, values, trial.inputs, suspects.tolerance)
        except EngineError as error:
            return Difference("the graph", error.what, engine or "a rewrite pass")
        if found is not None:
            return blame(found, suspects.optimised, engine=engine, origins=origins)
    return None


def _advice(found: Difference | None) -> str:
    if found is None:
        return "raise --tolerance only if you know that this much error is harmless"
    if found.plugin:
        return (
            f"report this to the authors of {found.plugin}; nothing was written. "
            "--without-plugins compiles without it"
        )
    return (
        "please report this with the node above; nothing was written. "
        "--tolerance accepts more error, if you know that it is harmless"
    )
