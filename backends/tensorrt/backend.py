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

from leptonc.backends.base import Payload, PayloadWeight, Progress, Target, ignore_progress
from leptonc.backends.errors import BuildError, UnsupportedOperatorError
from leptonc.backends.ort.session import saved
from leptonc.backends.tensorrt.errors import build_refused, builder_died, parser_refused
from leptonc.backends.tensorrt.operators import Uncovered, find_uncovered
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
from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.cuda.driver import Cuda, import_cuda
from leptonc.runtime.engines.tensorrt.plan_check import objections
from leptonc.runtime.engines.tensorrt.plan_demands import parse_plan_demands
from leptonc.runtime.errors import EngineError, EngineMissingError, EnvironmentProblem
from leptonc.runtime.machine import Host, this_system

_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
_MODULES = {RTX: "tensorrt_rtx_bindings", CLASSIC: "tensorrt"}
_INSTALL = {
    RTX: "pip install 'leptonc[tensorrt]'",
    CLASSIC: "install TensorRT on the machine with the GPU: pip install tensorrt",
}
_TYPE_NAMES = {element.onnx: name for name, element in ELEMENT_TYPES.items()}


class TensorRTBackend:
    """TensorRT for RTX, or TensorRT."""

    name: ClassVar[str] = "tensorrt"

    def supports(self, target: Target) -> str | None:
        """Return why this backend cannot build for `target`, or None when it can."""
        if target.device != "gpu":
            return "TensorRT builds for GPUs only"
        if target.precision not in _PRECISIONS:
            return f"the tensorrt backend does not build precision {target.precision!r} yet"
        if target.require == "native":
            return "what a TensorRT plan demands does not depend on the CPU"
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
        refuse_uncovered(find_uncovered(source, infer_facts(source), _capabilities(target)))
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
        variant = _variant(target, result, profiles)
        return Payload(
            variant=variant,
            graph=data,
            weights=_stripped(source, result.get("stripped", ())),
            placement={},
            built=source,
            not_run=_why_not_run(variant["demands"]),
            figures=_figures(result, len(data)),
        )


def flavour_of(options: TensorRTOptions) -> str:
    """Return the flavour to build with; see `choose_flavour`."""
    return choose_flavour(
        options.flavour, {name: find_spec(module) is not None for name, module in _MODULES.items()}
    )


def require_installed(flavour: str) -> None:
    """Raise EngineMissingError unless the libraries of `flavour` are there."""
    if find_spec(_MODULES[flavour]) is None:
        raise EngineMissingError(f"{FLAVOURS[flavour]} is not installed", fix=_INSTALL[flavour])


def refuse_uncovered(found: tuple[Uncovered, ...]) -> None:
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


def check_coverage(
    model: ir.Model, target: Target, workdir: Path
) -> tuple[tuple[Uncovered, ...], str | None]:
    """Say which nodes TensorRT would refuse, without building.

    Returns:
        The nodes, and the version whose parser read the graph: None when the libraries are not
        here, or when nodes are known to be refused, which may crash the parser.
    """
    found = find_uncovered(model, infer_facts(model), _capabilities(target))
    flavour = flavour_of(target.options)
    if found or find_spec(_MODULES[flavour]) is None:
        return found, None
    folder = workdir / target.name
    folder.mkdir(parents=True, exist_ok=True)
    with saved(model.clone(), folder) as path:
        request = BuildRequest(flavour, path, parse_only=True)
        outcome = run_builder(request, folder, ignore_progress)
    if not outcome.result:
        raise builder_died(outcome)
    version = f"{FLAVOURS[flavour]} {outcome.result.get('version')}"
    errors = outcome.result.get("errors", ())
    return tuple(parser_refused(error, model) for error in errors), version


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
    refuse_uncovered(tuple(parser_refused(error, source) for error in result["errors"]))
    raise AssertionError("an error was found and not raised")


def _variant(
    target: Target, result: Mapping[str, Any], profiles: tuple[Ranges, ...]
) -> dict[str, Any]:
    options = target.options
    flavour = flavour_of(options)
    return {
        "name": target.name,
        "backend": target.backend,
        "device": target.device,
        "precision": target.precision,
        "demands": {
            "engine": FLAVOURS[flavour],
            "version": result["version"],
            "compute_capabilities": result["capabilities"],
            "os": this_system(),
            "profiles": [dict(profile) for profile in profiles],
            "version_compatible": options.version_compatible,
            "hardware_compatibility": options.hardware_compatible,
        },
        "graph": f"{target.name}/plan",
        "options": {"weight_streaming": "yes"} if options.weight_streaming else {},
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
        tensor = value.const_value
        found.append(PayloadWeight(name, _TYPE_NAMES[int(tensor.dtype)], tensor))
    return tuple(found)


def _figures(result: Mapping[str, Any], size: int) -> dict[str, Any]:
    return {
        "seconds": round(float(result["seconds"]), 3),
        "plan_bytes": size,
        "peak_bytes": int(result["peak_bytes"]),
        "layers": int(result["layers"]),
        "repeatable": bool(result["addresses_fixed"]),
    }
