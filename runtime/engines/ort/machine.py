"""Says whether a variant will load on a machine's ONNX Runtime, by the rules of loading."""

from __future__ import annotations

from dataclasses import replace

from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.engines.base import Reason, Verdict
from leptonc.runtime.engines.ort.cuda_provider import CUDA
from leptonc.runtime.engines.ort.library import import_engine
from leptonc.runtime.errors import EngineMissingError
from leptonc.runtime.machine import Host, version_numbers

_NAME = "onnxruntime"


def look(host: Host) -> Host:
    """Return `host`, which is this machine, with the version of onnxruntime and its providers."""
    try:
        engine = import_engine()
    except EngineMissingError:
        return replace(
            host,
            engines={**host.engines, _NAME: None},
            parts={**host.parts, _NAME: frozenset()},
        )
    return replace(
        host,
        engines={**host.engines, _NAME: version_numbers(engine.__version__)},
        parts={**host.parts, _NAME: frozenset(engine.get_available_providers())},
    )


def judge(variant: Variant, host: Host) -> Verdict:
    """Say whether a variant will load there."""
    reasons: list[Reason] = []
    not_known: list[str] = []
    needed = ".".join(map(str, variant.demands.engine_min))
    fix = f"pip install 'onnxruntime>={needed}'"
    if _NAME not in host.engines:
        not_known.append(f"version of onnxruntime: {needed} or later is needed")
    else:
        version = host.engines[_NAME]
        if version is None:
            reasons.append(Reason("onnxruntime is not installed", fix))
        elif version < variant.demands.engine_min[: len(version)]:
            there = ".".join(map(str, version))
            what = f"onnxruntime {there} is installed; the artifact needs {needed} or later"
            reasons.append(Reason(what, fix))
    demanded = variant.demands.instructions
    if host.instructions is None and demanded:
        not_known.append(f"instruction sets of the CPU: {', '.join(demanded)} are needed")
    elif host.instructions is not None:
        lacking = [name for name in demanded if name not in host.instructions]
        if lacking:
            what = f"the CPU has no {', '.join(lacking)}"
            reasons.append(Reason(what, "compile it again without `--require native`"))
    if variant.device == "gpu":
        _judge_gpu(host, reasons, not_known)
    return Verdict(tuple(reasons), tuple(not_known))


def _judge_gpu(host: Host, reasons: list[Reason], not_known: list[str]) -> None:
    if _NAME not in host.parts:
        not_known.append("onnxruntime's CUDA provider: onnxruntime-gpu is needed")
    elif CUDA not in host.parts[_NAME]:
        what = "onnxruntime is installed without its CUDA provider"
        reasons.append(Reason(what, "pip uninstall onnxruntime && pip install 'leptonc[gpu]'"))
    if host.capability == "":
        what = host.problem or "there is no GPU"
        reasons.append(Reason(what, "use a machine with a GPU, or a variant for the CPU"))
    elif host.capability is None:
        not_known.append("GPU: one that CUDA supports is needed")
