"""Run an exported graph at further shapes, because exporters bake dimensions in silently.

A module that answers differently each time is told apart here: without that, its noise would
be blamed on the exporter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from leptonc.compiler.errors import BakedDimensionError, ExportError
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.sources.dimensions import example_sizes, resize_inputs
from leptonc.compiler.sources.source import Source
from leptonc.compiler.verification.comparison import OutputError, compare_outputs
from leptonc.compiler.verification.trials import Trial, require_repeatable
from leptonc.runtime.errors import EngineError


def probe_dimensions(
    graph: ir.Model, source: Source, trials: Sequence[Trial], tolerance: Tolerance
) -> None:
    """Compare the exported graph with the module at every trial but the example's own.

    Raises:
        ExportError: The module does not answer the same twice, or the graph is wrong already
            at the example's own shape.
        BakedDimensionError: The graph fails or answers differently at another shape; the
            error names the dimension that makes it do so by itself.
    """
    if len(trials) < 2:
        return
    runner = GraphRunner(graph)
    example = example_sizes(source.inputs, source.axes)
    for trial in trials[1:]:
        problem = _problem(runner, trial, tolerance)
        if problem is None:
            continue
        require_repeatable(source, trials[0], tolerance)
        at_example = _problem(runner, trials[0], tolerance)
        if at_example is not None:
            raise ExportError(
                f"the exported graph does not compute what the module does ({at_example})",
                where=source.name,
                fix="write that part of the module with other operators, and report this",
            )
        names = [name for name in trial.sizes if trial.sizes[name] != example[name]]
        guilty = _guilty(runner, source, trial.sizes, names, tolerance)
        sizes = ", ".join(f"{name}={trial.sizes[name]}" for name in guilty)
        raise BakedDimensionError(
            f"the exporter fixed {_plural(guilty)}: the exported graph is wrong at {sizes} "
            f"({problem})",
            where="the example has " + ", ".join(f"{name}={example[name]}" for name in guilty),
            fix="compute with x.shape[axis] instead of a number in the module, or leave the "
            "dimension out of dynamic_shapes()",
        )


def _problem(runner: GraphRunner, trial: Trial, tolerance: Tolerance) -> str | None:
    try:
        actual = runner(trial.inputs)
    except EngineError as error:
        return error.what.splitlines()[0]
    wrong: list[OutputError] = [
        error
        for error in compare_outputs(trial.expected, actual, tolerance)
        if error.problem is not None
    ]
    return f"output {wrong[0].output!r}: {wrong[0].problem}" if wrong else None


def _guilty(
    runner: GraphRunner,
    source: Source,
    sizes: Mapping[str, int],
    names: list[str],
    tolerance: Tolerance,
) -> list[str]:
    """Return the first dimension that fails when it alone changes, else all that changed."""
    example = example_sizes(source.inputs, source.axes)
    for name in names:
        alone = {**example, name: sizes[name]}
        inputs = resize_inputs(source.inputs, source.axes, alone)
        trial = Trial(alone, inputs, source.reference(inputs))
        if _problem(runner, trial, tolerance) is not None:
            return [name]
    return names


def _plural(names: list[str]) -> str:
    quoted = " and ".join(repr(name) for name in names)
    return f"dimension {quoted}" if len(names) == 1 else f"dimensions {quoted}"
