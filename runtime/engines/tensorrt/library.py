"""Opens plans on TensorRT for RTX or TensorRT; the only module that imports either.

The two share their API. A plan is native code: nothing here sees bytes whose digest, demands and
header have not been checked (`checked_plan`, and `objections` before it).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from leptonc.runtime.artifact.layout import CHUNK
from leptonc.runtime.artifact.manifest import Variant, Weight
from leptonc.runtime.artifact.reader import Artifact
from leptonc.runtime.engines.tensorrt.plan_demands import TENSORRT, TENSORRT_RTX
from leptonc.runtime.errors import EngineError, EngineMissingError, IntegrityError
from leptonc.runtime.machine import version_numbers

_ELEMENT_TYPES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "bfloat16": "BF16",
    "int8": "INT8",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}
_MODULES = {TENSORRT_RTX: "tensorrt_rtx_bindings", TENSORRT: "tensorrt"}
_INSTALL = {
    TENSORRT_RTX: "pip install 'leptonc[tensorrt]'",
    TENSORRT: "install TensorRT for this machine: pip install tensorrt",
}


def import_engine(flavour: str) -> Any:
    """Return the module of "tensorrt-rtx" or "tensorrt".

    Raises:
        EngineMissingError: It is not installed, or cannot be imported.
    """
    try:
        if flavour == TENSORRT_RTX:
            import tensorrt_rtx_bindings as engine
        else:
            import tensorrt as engine
    except (ImportError, OSError) as error:
        missing = isinstance(error, ModuleNotFoundError)
        raise EngineMissingError(
            f"{flavour} is not installed" if missing else f"{flavour} cannot be imported: {error}",
            fix=_INSTALL[flavour],
        ) from error
    return engine


def installed() -> dict[str, tuple[int, ...] | None]:
    """Return the version of each flavour that is installed, without importing it."""
    return {flavour: _installed(module) for flavour, module in _MODULES.items()}


def _installed(module: str) -> tuple[int, ...] | None:
    # They cost milliseconds, which a load does not pay.
    from importlib import metadata, util

    if util.find_spec(module) is None:
        return None
    for name in metadata.packages_distributions().get(module, ()):
        return version_numbers(metadata.version(name))
    return None


def checked_plan(artifact: Artifact, variant: Variant) -> bytes:
    """Return a copy of the plan's bytes whose digests were checked on that very copy.

    The mapped file could change between a check and its use; a copy of this process cannot.

    Raises:
        IntegrityError: The bytes are not those that were written.
    """
    section = artifact.sections[variant.graph]
    plan = bytes(artifact.view(variant.graph))
    whole = memoryview(plan)
    for index, digest in enumerate(section.sha256):
        if sha256(whole[index * CHUNK : (index + 1) * CHUNK]).digest() != digest:
            raise IntegrityError(
                "the plan is not the one that was written; it was not handed to TensorRT",
                where=f"{artifact.path}, section {section.name!r}",
                fix="the file is damaged: copy or compile it again",
            )
    return plan


@functools.cache
def message_log(engine: Any) -> Any:
    """Return the logger of a TensorRT module; TensorRT keeps the first one for the whole process.

    `take()` gives the errors that this thread's calls caused since it was last asked.
    """

    class Log(engine.ILogger):  # type: ignore[misc]  # a class of a library without types
        def __init__(self) -> None:
            engine.ILogger.__init__(self)
            self._errors = threading.local()

        def log(self, severity: Any, message: str) -> None:
            if severity in (engine.ILogger.Severity.ERROR, engine.ILogger.Severity.INTERNAL_ERROR):
                self._errors.__dict__.setdefault("lines", []).append(message)

        def take(self) -> list[str]:
            return list(self._errors.__dict__.pop("lines", []))

    return Log()


def failure(engine: Any, otherwise: str) -> str:
    """Return what TensorRT said first about the call that failed, or `otherwise`."""
    errors = message_log(engine).take()
    return errors[0].strip() if errors else otherwise


def deserialize(engine: Any, plan: bytes, where: str) -> Any:
    """Return TensorRT's engine for a plan that `checked_plan` gave.

    Raises:
        EngineError: TensorRT refuses it; the message is its own.
    """
    log = message_log(engine)
    log.take()
    runtime = engine.Runtime(log)
    opened = runtime.deserialize_cuda_engine(plan)
    if opened is None:
        raise EngineError(
            f"TensorRT refuses the plan: {failure(engine, 'it gives no reason')}",
            where=where,
            fix="compile the model again with the TensorRT that is installed here",
        )
    return opened


def stream_weights(opened: Any, variant: Variant) -> None:
    """Let a plan that was built for it keep on the GPU as many weights as TensorRT sees fit.

    The budget holds for contexts made from then on; without one, all weights lie on the GPU.
    """
    if variant.options.get("weight_streaming") == "yes":
        opened.weight_streaming_budget_v2 = opened.get_weight_streaming_automatic_budget()


def refit(engine: Any, opened: Any, artifact: Artifact, variant: Variant) -> None:
    """Give a plan that was built without its weights those of the artifact.

    Raises:
        EngineError: A weight is not one of the plan's, or one of the plan's is missing.
    """
    where = f"{artifact.path}, variant {variant.name!r}"
    refitter = engine.Refitter(opened, message_log(engine))
    kept: Mapping[str, memoryview] = {
        weight.name: artifact.view(weight.section, weight.offset, weight.length)
        for weight in variant.weights
    }
    for weight in variant.weights:
        if not refitter.set_named_weights(weight.name, _weights(engine, weight, kept[weight.name])):
            raise EngineError(
                f"TensorRT does not take the weight {weight.name!r}: "
                f"{failure(engine, 'the plan has none of that name, type and size')}",
                where=where,
                fix="compile the model again",
            )
    missing = refitter.get_missing_weights()
    if missing or not refitter.refit_cuda_engine():
        reason = f"{len(missing)} are missing, first {missing[0]!r}" if missing else "it gives none"
        raise EngineError(
            f"the plan cannot be given its weights: {failure(engine, reason)}",
            where=where,
            fix="compile the model again",
        )


def _weights(engine: Any, weight: Weight, view: memoryview) -> Any:
    import numpy as np

    kind = getattr(engine.DataType, _ELEMENT_TYPES[weight.dtype])
    address = np.frombuffer(view, np.uint8).ctypes.data
    count = weight.length // kind.itemsize
    return engine.Weights(kind, address, count)
