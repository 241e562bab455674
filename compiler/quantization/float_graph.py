"""From the exported graph to a quantised one: float graph, ranges, plan."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.backends.base import Target
from leptonc.compiler.calibration.observe import observe_ranges
from leptonc.compiler.errors import CalibrationError
from leptonc.compiler.job import Job
from leptonc.compiler.sources.source import Source
from leptonc.passes.base import PassStats
from leptonc.passes.clean.clean import Clean
from leptonc.passes.fusions.attention.fuse import SPLIT_ATTENTION
from leptonc.passes.graph.fingerprint import fingerprint
from leptonc.passes.lower.standard_operators import STANDARD_OPERATORS
from leptonc.passes.pipeline import Context, run_on_valid
from leptonc.passes.plugins import Plugin
from leptonc.passes.quantize.default_plan import default_plan, resolved_method
from leptonc.passes.quantize.methods import STATIC
from leptonc.passes.quantize.plan import QuantizationPlan, find_layers
from leptonc.passes.quantize.quantize import apply_plan
from leptonc.passes.ranges.file import read_ranges
from leptonc.passes.ranges.observed import with_rearranged
from leptonc.passes.ranges.table import Ranges
from leptonc.passes.schedule import CANONICAL, LOWER, MERGE, optimize
from leptonc.passes.share.share import Share


@dataclass(frozen=True, eq=False)
class FloatGraph:
    """What quantisation starts from.

    Attributes:
        model: The float graph up to the stage "merge": its layers are whole.
        ranges: What calibration observed; None where no layer is static.
        plan: How each layer is quantised: at first by default, in the end as was found best.
        passes: What led to the graph.
        plugins: Passes of others, for the stage that comes after quantisation.
    """

    model: ir.Model
    ranges: Ranges | None
    plan: QuantizationPlan
    passes: tuple[PassStats, ...]
    plugins: tuple[Plugin, ...] = ()


def float_graph(job: Job, model: ir.Model) -> FloatGraph:
    """Rewrite `model` in place as far as quantisation, calibrate it if need be, and plan.

    Ranges are bound to the canonical graph and are looked up in the fused one by the names of
    tensors, which every rewrite keeps. Quantisation comes after fusion because a layer must be
    whole before its weight is rounded: normalisation folded in, and Q, K, V one product.

    Args:
        job: Says how, and gives calibration data where there is no table.
        model: As exported.

    Raises:
        CalibrationError: Ranges are needed, and there is no data.
        RangesError: The table is damaged, or of another graph.
        PassRefusedError: Nothing in the graph can be quantised as asked.
    """
    settings, steps, graph = job.settings, job.steps, job.target.platform
    with steps.step("optimize", "rewrite the graph"):
        done = optimize(model, target=graph, plugins=job.plugins, upto=CANONICAL)
    ranges = None
    if settings.calibration is not None:
        ranges = read_ranges(settings.calibration)
        ranges.require_graph(fingerprint(model))
    canonical = model.clone() if ranges is None else None
    with steps.step("fuse", "fuse what can be fused"):
        plain = run_on_valid(model, (STANDARD_OPERATORS, SPLIT_ATTENTION), Context(graph))
        fused = optimize(model, target=graph, plugins=job.plugins, upto=MERGE)
    asked = settings.how_to_quantize
    precision = job.target.precision
    method = resolved_method(find_layers(model), graph, precision, asked.method)
    if canonical is not None and method == STATIC:
        with steps.step("observe", "run the model over the calibration data"):
            ranges = _observed(canonical, job.source)
    if ranges is not None:
        ranges = with_rearranged(ranges, model)
    plan = default_plan(model, graph, precision, ranges, asked)
    return FloatGraph(model, ranges, plan, (*done, *plain, *fused), job.plugins)


def _observed(model: ir.Model, source: Source) -> Ranges:
    try:
        return observe_ranges(model, source)
    except CalibrationError as error:
        if error.what.startswith("no data"):
            error.fix = (
                "add calibration_data() to the recipe, or make a table with `leptonc calibrate "
                "--data` and give it with --calibration"
            )
        raise


def quantized(floats: FloatGraph, target: Target) -> tuple[ir.Model, tuple[PassStats, ...]]:
    """Return the graph with its plan carried out, and what that took; `floats` stays as it is.

    Raises:
        LeptonError: As `apply_plan`.
    """
    model = floats.model.clone()
    stats = apply_plan(model, floats.plan, floats.ranges, target.platform)
    # Tables and weights that two layers share became two equal ones.
    rest = run_on_valid(model, (Clean(), Share()))
    lowered = optimize(model, target=target.platform, plugins=floats.plugins, since=LOWER)
    return model, (stats, *rest, *lowered)
