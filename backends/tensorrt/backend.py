"""Builds TensorRT plans, with TensorRT for RTX on machines without a GPU.

1. Nodes that are known to be refused are refused here, by name, before TensorRT sees the graph.
2. The graph goes to a file with external weights. Its types are those of the graph: networks are
   strongly typed, so that what is explicit in the graph is what runs.
3. A process of its own parses and builds. Its errors come back as one message with our node and
   the user's line; a crash becomes an error like any other.
4. The engine has not run when it was built without its GPU: the graph is proven instead, and the
   evidence says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import onnx_ir as ir

from leptonc.backends.abilities import DryRun, Refused
from leptonc.backends.base import (
    Payload,
    PayloadWeight,
    Progress,
    Target,
    Unsupported,
    ignore_progress,
)
from leptonc.backends.errors import BuildError, UnsupportedOperatorError
from leptonc.backends.saved_graph import saved
from leptonc.backends.tensorrt.errors import build_refused, builder_died, parser_refused
from leptonc.backends.tensorrt.operators import find_refused
from leptonc.backends.tensorrt.options import (
    CLASSIC,
    FLAVOURS,
    RTX,
    TensorRTOptions,
    choose_flavour,
)
from leptonc.backends.tensorrt.preconditions import require_precision
from leptonc.backends.tensorrt.process import BuildOutcome, BuildRequest, run_builder
from leptonc.backends.tensorrt.profiles import Ranges, input_ranges
from leptonc.passes.facts.facts import infer_facts
from leptonc.runtime.cuda.driver import Cuda, import_cuda
from leptonc.runtime.engines.tensorrt.plan_check import objections
from leptonc.runtime.engines.tensorrt.plan_demands import parse_plan_demands
from leptonc.runtime.errors import EngineError, EngineMissingError, EnvironmentProblem
from leptonc.runtime.machine import Host, this_system

_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
_OTHER = "use the target ort-cpu"
_MODULES = {RTX: "tensorrt_rtx_bindings", CLASSIC: "tensorrt"}
_INSTALL = {
    RTX: "pip install 'leptonc[tensorrt]'",
    CLASSIC: "install TensorRT on the machine with the GPU: pip install tensorrt",
}


class TensorRTBackend:
    """TensorRT for RTX, or TensorRT."""

    name: ClassVar[str] = "tensorrt"

    def supports(self, target: Target) -> Unsupported | None:
        """Return why this backend cannot build for `target`, or None when it can."""
        precision = target.precision
        if target.device != "gpu":
            return Unsupported("TensorRT builds for GPUs only", _OTHER)
        if precision not in _PRECISIONS:
            return Unsupported(
                f"the tensorrt backend does not build precision {precision!r} yet",
                "use -p fp32, or a target that computes so: -t ort-cuda takes fp16 and bf16",
            )
        if target.require == "native":
            return Unsupported("what a TensorRT plan demands does not depend on the CPU", _OTHER)
        options: TensorRTOptions = target.options
        return options.refusal(flavour_of(options))

    def build(
        self,
        model: ir.Model,
        target: Target,
        workdir: Path,
        progress: Progress = ignore_progress,
    ) -> Payload:
        """Build `model`, which stays as it is.

        Args:
            model: In the precision of the target; weights may be in memory or external.
            target: Backend "tensorrt", with the profiles to build for.
            workdir: For large files; must outlive the payload.
            progress: Gets how far the builder is.

        Raises:
            EngineMissingError: The flavour is not installed.
            UnsupportedOperatorError: TensorRT does not take a node.
            UnsupportedTargetError: A dimension has no range, or the graph another precision.
            BuildError: The builder failed or crashed.
        """
        flavour = flavour_of(target.options)
        require_installed(flavour)
        require_precision(model, target)
        source = model.clone()
        require_taken(find_refused(source, infer_facts(source), _capabilities(target)))
        profiles = tuple(input_ranges(source, profile) for profile in target.profiles or ({},))
        folder = workdir / target.name
        folder.mkdir(parents=True, exist_ok=True)
        with saved(source.clone(), folder) as path:
            outcome = run_builder(_request(target, path, profiles), folder, progress)
        _require_plan(outcome, source)
        result = outcome.result
        plan = folder / "plan"
        try:
            data = plan.read_bytes()
        finally:
            plan.unlink(missing_ok=True)
        demands = _demands(target.options, result, profiles)
        streaming = {"weight_streaming": "yes"} if target.options.weight_streaming else {}
        return Payload(
            variant=target.variant(demands, streaming, section="plan"),
            graph=data,
            weights=_stripped(source, result.get("stripped", ())),
            placement={},
            built=source,
            not_run=_why_not_run(demands),
            figures=_figures(result, len(data)),
        )

    def dry_run(self, model: ir.Model, target: Target, workdir: Path) -> DryRun:
        """Say which nodes TensorRT would refuse, without building.

        Its parser reads the graph unless the libraries are not here, or nodes are known to be
        refused, which may crash it.
        """
        found = find_refused(model, infer_facts(model), _capabilities(target))
        flavour = flavour_of(target.options)
        if found or find_spec(_MODULES[flavour]) is None:
            return DryRun(found)
        folder = workdir / target.name
        folder.mkdir(parents=True, exist_ok=True)
        with saved(model.clone(), folder) as path:
            request = BuildRequest(flavour, path, parse_only=True)
            outcome = run_builder(request, folder, ignore_progress)
        if not outcome.result:
            raise builder_died(outcome)
        version = f"{FLAVOURS[flavour]} {outcome.result.get('version')}"
        errors = outcome.result.get("errors", ())
        return DryRun(tuple(parser_refused(error, model) for error in errors), version)


def flavour_of(options: TensorRTOptions) -> str:
    """Return the flavour to build with; see `choose_flavour`."""
    return choose_flavour(
        options.flavour, {name: find_spec(module) is not None for name, module in _MODULES.items()}
    )


def require_installed(flavour: str) -> None:
    """Raise EngineMissingError unless the libraries of `flavour` are there."""
    if find_spec(_MODULES[flavour]) is None:
        raise EngineMissingError(f"{FLAVOURS[flavour]} is not installed", fix=_INSTALL[flavour])


def require_taken(found: tuple[Refused, ...]) -> None:
    """Refuse the first node that TensorRT does not take.

    Raises:
        UnsupportedOperatorError: There is one; how many others there are is said as well.
    """
    if not found:
        return
    first, more = found[0], len(found) - 1
    raise UnsupportedOperatorError(
        f"TensorRT does not take {first.operator}: {first.reason}"
        + (f" ({more} more: `--dry-run` lists them)" if more else ""),
        where=first.where,
        fix=first.fix,
    )


def _capabilities(target: Target) -> tuple[str, ...]:
    return target.options.capabilities() if flavour_of(target.options) == RTX else ()


def _request(target: Target, path: Path, profiles: tuple[Ranges, ...]) -> BuildRequest:
    options = target.options
    flags = []
    if options.weight_streaming:
        flags.append("WEIGHT_STREAMING")
    if options.version_compatible:
        flags += ["VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"]
    if options.strip_weights:
        flags += ["STRIP_PLAN", "REFIT_IDENTICAL"]
    return BuildRequest(
        flavour_of(options),
        path,
        _capabilities(target),
        profiles,
        tuple(flags),
        options.builder_level,
        options.workspace,
        options.hardware_compatible,
        options.timing_cache,
    )


def _require_plan(outcome: BuildOutcome, source: ir.Model) -> None:
    result = outcome.result
    if not result:
        raise builder_died(outcome)
    failed = result.get("failed")
    if failed == "missing":
        raise EngineMissingError(f"TensorRT cannot be imported: {result['message']}")
    if failed == "parse":
        refuse_parsed(result, source)
    if failed is not None:
        raise build_refused(result, source)


def refuse_parsed(result: Mapping[str, Any], source: ir.Model) -> NoReturn:
    """Raise the error for a graph that the parser did not take."""
    if not result["errors"]:
        raise BuildError("TensorRT's parser refuses the graph and does not say why")
    require_taken(tuple(parser_refused(error, source) for error in result["errors"]))
    raise AssertionError("an error was found and not raised")


def _demands(
    options: TensorRTOptions, result: Mapping[str, Any], profiles: tuple[Ranges, ...]
) -> dict[str, Any]:
    return {
        "engine": FLAVOURS[flavour_of(options)],
        "version": result["version"],
        "compute_capabilities": result["capabilities"],
        "os": this_system(),
        "profiles": [dict(profile) for profile in profiles],
        "version_compatible": options.version_compatible,
        "hardware_compatibility": options.hardware_compatible,
    }


def _why_not_run(demands: Mapping[str, Any]) -> str | None:
    """Return why this machine cannot run the plan, or None when it can."""
    try:
        capability = Cuda(import_cuda()).capability()
    except (EnvironmentProblem, EngineError) as problem:
        return problem.what
    found = objections(parse_plan_demands(demands, "demands", _fail), Host(None, {}, capability))
    return found[0].what if found else None


def _fail(path: str, what: str) -> NoReturn:
    raise BuildError(f"the plan's {path}: {what}")


def _stripped(source: ir.Model, names: tuple[str, ...]) -> tuple[PayloadWeight, ...]:
    """Return the weights that a plan was built without."""
    found = []
    for name in names:
        value = source.graph.initializers.get(name)
        if value is None or value.const_value is None:
            raise BuildError(
                f"the plan wants a weight {name!r} that the graph does not have",
                fix="build without --strip-weights",
            )
        found.append(PayloadWeight.of(name, value.const_value))
    return tuple(found)


def _figures(result: Mapping[str, Any], size: int) -> dict[str, Any]:
    return {
        "seconds": round(float(result["seconds"]), 3),
        "plan_bytes": size,
        "peak_bytes": int(result["peak_bytes"]),
        "layers": int(result["layers"]),
        "repeatable": bool(result["addresses_fixed"]),
    }
