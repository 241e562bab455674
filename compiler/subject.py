"""A source that is open: its right answers, and its graph as exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.compiler.console.progress import Steps
from leptonc.compiler.export.onnx_export import ExportedGraph, export
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.sources.opening import open_source
from leptonc.compiler.sources.source import Source
from leptonc.compiler.verification.finite_answers import require_finite
from leptonc.compiler.verification.shape_probe import probe_dimensions
from leptonc.compiler.verification.trials import Trial, reference_trials


@dataclass(frozen=True)
class Subject:
    """A source, the right answers, and its graph before and during the rewriting."""

    source: Source
    trials: tuple[Trial, ...]
    exported: ExportedGraph
    model: ir.Model


def open_and_export(settings: CompileSettings, steps: Steps) -> Subject:
    """Open the source, compute the right answers, and export it; nothing is rewritten yet."""
    with steps.step("load", "load the source"):
        source = open_source(settings.source, inputs=settings.inputs)
    if steps.console is not None:
        for note in source.notes:
            steps.console.print(f"  note: {note}", highlight=False, markup=False)
    with steps.step("reference", "run the source at each shape"):
        trials = reference_trials(source)
    with steps.step("export", "export to ONNX"):
        exported = export(source, list(trials[0].expected), opset=settings.opset)
    require_finite(exported.model, trials)
    if source.graph is not None:
        # The file's own graph stays as it is: it is the reference.
        model = exported.model.clone()
        settle_outputs(model, trials)
        return Subject(source, trials, exported, model)
    with steps.step("probe", "try other shapes on the export"):
        probe_dimensions(exported.model, source, trials, settings.exact)
    return Subject(source, trials, exported, exported.model)


def settle_outputs(model: ir.Model, trials: Sequence[Trial]) -> None:
    """Correct what a file says about its outputs by what it returned.

    A missing dtype or shape is filled in, and a size that one of `trials` contradicts becomes
    unknown: whoever allocates by the signature must be able to believe it.

    Args:
        model: The graph; changed in place.
        trials: Runs of the source, with the sizes of its named dimensions.
    """
    for value in model.graph.outputs:
        name = str(value.name)
        seen = [(trial.sizes, trial.expected[name]) for trial in trials if name in trial.expected]
        if not seen or not isinstance(seen[0][1], np.ndarray):
            continue
        array = seen[0][1]
        if value.type is None:
            dtype = (
                ir.DataType.STRING
                if array.dtype.kind in "OU"
                else ir.DataType.from_numpy(array.dtype)
            )
            value.type = ir.TensorType(dtype)
        declared = value.shape
        if declared is None or len(declared) != array.ndim:
            value.shape = ir.Shape([None] * array.ndim)
            continue
        value.shape = ir.Shape(
            [
                size
                if all(_agrees(size, sizes, each.shape[axis]) for sizes, each in seen)
                else None
                for axis, size in enumerate(declared)
            ]
        )


def _agrees(size: int | ir.SymbolicDim, sizes: Mapping[str, int], actual: int) -> bool:
    if isinstance(size, int):
        return size == actual
    return size.value is None or sizes.get(size.value, actual) == actual
