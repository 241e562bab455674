"""Opens a TensorRT variant: every check first, then the plan."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from hashlib import sha256

from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import Artifact
from leptonc.runtime.cuda.driver import Cuda, import_cuda
from leptonc.runtime.engines.base import Opener, Verdict
from leptonc.runtime.engines.load_options import LoadOptions
from leptonc.runtime.engines.tensorrt.engine import CacheFile, TensorRTEngine
from leptonc.runtime.engines.tensorrt.kernel_cache import CacheKey, cache_path
from leptonc.runtime.engines.tensorrt.library import (
    checked_plan,
    deserialize,
    import_engine,
    installed,
    refit,
    stream_weights,
)
from leptonc.runtime.engines.tensorrt.plan_check import judge, objections
from leptonc.runtime.engines.tensorrt.plan_demands import TENSORRT_RTX, PlanDemands
from leptonc.runtime.engines.tensorrt.plan_header import check_plan_header
from leptonc.runtime.machine import Host, this_system, version_numbers


@dataclass(frozen=True)
class TensorRTLoader:
    """What opens plans, and says whether they will open elsewhere; see `Loader`."""

    def prepare(self, variant: Variant, where: str) -> Opener:
        """Return `open_plan`: nothing is imported for a plan before every hash is right."""
        del variant, where
        return open_plan

    def look(self, host: Host) -> Host:
        """Add the versions of both flavours."""
        return replace(host, engines={**host.engines, **installed()})

    def judge(self, artifact: Artifact, variant: Variant, host: Host) -> Verdict:
        """Judge the plan by its header and by what it demands.

        Raises:
            ArtifactError: The plan is not the one that the manifest describes.
        """
        where = f"{artifact.path}, variant {variant.name!r}"
        check_plan_header(artifact.view(variant.graph), variant.demands.own, where)
        return judge(variant.demands.own, host)


def open_plan(artifact: Artifact, variant: Variant, options: LoadOptions) -> TensorRTEngine:
    """Check a plan against this machine and its own digest, then hand it to TensorRT.

    Args:
        artifact: Open.
        variant: One of its TensorRT variants.
        options: Whether kernels are recorded, and where those compiled here are kept.

    Raises:
        EngineMissingError: TensorRT or cuda-bindings is missing, or of another version.
        MachineError: No driver, an old one, no GPU, another GPU, another operating system.
        IntegrityError: The plan is not the one that was written.
        ArtifactError: The plan is not the one that the manifest describes.
        EngineError: TensorRT refuses it.
        DeviceMemoryError: The GPU has not enough memory.
    """
    demands: PlanDemands = variant.demands.own
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
    if demands.flavour == TENSORRT_RTX and options.runtime_cache is not False:
        digests = b"".join(artifact.sections[variant.graph].sha256)
        key = CacheKey(
            sha256(digests).hexdigest(), engine.__version__, capability, cuda.driver_version()
        )
        chosen = None if options.runtime_cache is True else os.fspath(options.runtime_cache)
        cache = CacheFile(cache_path(artifact.path, variant.name, key, chosen), key)
    return TensorRTEngine(
        engine,
        cuda,
        opened,
        artifact.manifest.signature,
        demands,
        graphs=options.cuda_graphs,
        cache_file=cache,
        where=where,
    )


def _require(demands: PlanDemands, host: Host, where: str) -> None:
    for objection in objections(demands, host):
        raise objection.error(where)
