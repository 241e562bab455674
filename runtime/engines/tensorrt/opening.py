"""Opens a TensorRT variant: every check first, then the plan."""

from __future__ import annotations

import os
from hashlib import sha256

from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.plan_demands import TENSORRT_RTX, PlanDemands
from leptonc.runtime.artifact.reader import Artifact
from leptonc.runtime.cuda.driver import Cuda, import_cuda
from leptonc.runtime.engines.tensorrt.engine import CacheFile, TensorRTEngine
from leptonc.runtime.engines.tensorrt.kernel_cache import CacheKey, cache_path
from leptonc.runtime.engines.tensorrt.library import (
    checked_plan,
    deserialize,
    import_engine,
    refit,
    stream_weights,
    version_numbers,
)
from leptonc.runtime.engines.tensorrt.plan_check import Host, objections, this_system
from leptonc.runtime.engines.tensorrt.plan_header import check_plan_header


def open_tensorrt(
    artifact: Artifact,
    variant: Variant,
    demands: PlanDemands,
    *,
    graphs: bool = False,
    runtime_cache: str | os.PathLike[str] | bool = True,
) -> TensorRTEngine:
    """Check a plan against this machine and its own digest, then hand it to TensorRT.

    Args:
        artifact: Open.
        variant: One of its TensorRT variants.
        demands: `variant.demands.plan`.
        graphs: Record the kernels of shapes that repeat, and replay them.
        runtime_cache: Where TensorRT-RTX keeps the kernels it compiles here: a file or a folder,
            True for beside the artifact, False for nowhere.

    Raises:
        EngineMissingError: TensorRT or cuda-bindings is missing, or of another version.
        MachineError: No driver, an old one, no GPU, another GPU, another operating system.
        IntegrityError: The plan is not the one that was written.
        ArtifactError: The plan is not the one that the manifest describes.
        EngineError: TensorRT refuses it.
        DeviceMemoryError: The GPU has not enough memory.
    """
    where = f"{artifact.path}, variant {variant.name!r}"
    _require(demands, Host(this_system(), {}, None), where)
    engine = import_engine(demands.flavour)
    version = version_numbers(engine.__version__)
    _require(demands, Host(None, {demands.flavour: version}, None), where)
    cuda = Cuda(import_cuda())
    capability = cuda.capability()
    _require(demands, Host(None, {}, capability), where)
    plan = checked_plan(artifact, variant)
    check_plan_header(plan, demands, where)
    opened = deserialize(engine, plan, where)
    if variant.weights:
        refit(engine, opened, artifact, variant)
    stream_weights(opened, variant)
    cache = None
    if demands.flavour == TENSORRT_RTX and runtime_cache is not False:
        digests = b"".join(artifact.sections[variant.graph].sha256)
        key = CacheKey(
            sha256(digests).hexdigest(), engine.__version__, capability, cuda.driver_version()
        )
        chosen = None if runtime_cache is True else os.fspath(runtime_cache)
        cache = CacheFile(cache_path(artifact.path, variant.name, key, chosen), key)
    return TensorRTEngine(
        engine,
        cuda,
        opened,
        artifact.manifest.signature,
        demands,
        graphs=graphs,
        cache_file=cache,
        where=where,
    )


def _require(demands: PlanDemands, host: Host, where: str) -> None:
    for objection in objections(demands, host):
        raise objection.error(where)
