"""Opens the variant that a load is to use, and says so when it is not the first choice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import Artifact, Verification, available_threads
from leptonc.runtime.engines.ort import library as ort
from leptonc.runtime.engines.ort.cpu import OrtEngine
from leptonc.runtime.errors import EnvironmentProblem, LeptonError
from leptonc.runtime.machine import check_instructions

if TYPE_CHECKING:
    from leptonc.runtime.engines.ort.cuda import CudaEngine
    from leptonc.runtime.engines.tensorrt.engine import TensorRTEngine

    Engine: TypeAlias = OrtEngine | CudaEngine | TensorRTEngine


@dataclass(frozen=True)
class LoadOptions:
    """The options of `load` that concern an engine; see there."""

    threads: int | None
    verify: bool
    spinning: bool
    eager: bool
    cuda_graphs: bool
    runtime_cache: str | os.PathLike[str] | bool


def open_first(
    artifact: Artifact, variants: Sequence[Variant], options: LoadOptions
) -> tuple[Variant, Engine]:
    """Open the first of these variants that works on this machine.

    Only what the machine lacks moves on to the next one; a damaged file or a graph that an engine
    refuses is an error at once. What was passed over is logged as a warning.

    Raises:
        LeptonError: None works; the error is that of the first.
    """
    verification = Verification(artifact, available_threads()) if options.verify else None
    passed: list[tuple[Variant, EnvironmentProblem]] = []
    try:
        for variant in variants:
            try:
                engine = _open(artifact, variant, options, verification)
            except EnvironmentProblem as error:
                passed.append((variant, error))
                continue
            _log_choice(artifact, variant, passed)
            return variant, engine
    except LeptonError:
        if verification is not None:
            verification.cancel()
        raise
    if verification is not None:
        verification.cancel()
    first = passed[0][1]
    for other, problem in passed[1:]:
        first.add_note(f"variant {other.name!r} was tried as well: {problem.what}")
    raise first


def _open(
    artifact: Artifact, variant: Variant, options: LoadOptions, verification: Verification | None
) -> Engine:
    if variant.demands.plan is not None:
        if verification is not None:
            verification.wait()
        from leptonc.runtime.engines.tensorrt.opening import open_tensorrt

        return open_tensorrt(
            artifact,
            variant,
            variant.demands.plan,
            graphs=options.cuda_graphs,
            runtime_cache=options.runtime_cache,
        )
    check_instructions(variant.demands.instructions, artifact.path)
    # Hashing goes on, on other threads, while the engine is imported on this one.
    engine = ort.import_engine()
    if verification is not None:
        verification.wait()
    ort.check_version(engine, variant, artifact.path)
    if variant.device == "gpu":
        from leptonc.runtime.engines.ort.cuda import CudaEngine

        return CudaEngine(engine, artifact, variant, graphs=options.cuda_graphs)
    return OrtEngine(
        engine,
        artifact,
        variant,
        threads=options.threads,
        spinning=options.spinning,
        eager=options.eager,
    )


def _log_choice(
    artifact: Artifact, variant: Variant, passed: Sequence[tuple[Variant, LeptonError]]
) -> None:
    if not passed:
        return
    # Only here, and it costs milliseconds.
    import logging

    log = logging.getLogger("leptonc.runtime")
    for other, error in passed:
        log.warning(
            "%s: the variant %r is not used: %s; %r runs on %s instead",
            artifact.path,
            other.name,
            error.what,
            variant.name,
            variant.device,
        )
