"""One row for each engine and device, the fastest first, and those that other distributions add.

The only file outside an engine's folder that names it. Nothing is imported before it is needed:
of other distributions nothing at all, unless an artifact has a variant of a backend of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from leptonc.runtime.engines.row import EngineRow, Library
from leptonc.runtime.errors import EnvironmentProblem

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from leptonc.runtime.artifact.manifest import Fail, ReadDemands, Variant
    from leptonc.runtime.artifact.signature import Signature
    from leptonc.runtime.engines.base import Loader

GROUP = "leptonc.engines"


def _tensorrt() -> Loader:
    from leptonc.runtime.engines.tensorrt.opening import TensorRTLoader

    return TensorRTLoader()


def _ort(device: str) -> Loader:
    from leptonc.runtime.engines.ort.opening import OrtLoader

    return OrtLoader(device)


def _plan_demands(value: Mapping[str, Any], signature: Signature, path: str, fail: Fail) -> object:
    from leptonc.runtime.engines.tensorrt.plan_demands import read_plan_demands

    return read_plan_demands(value, signature, path, fail)


_TENSORRT = (
    Library("tensorrt-rtx", "TensorRT for RTX", "1.7"),
    Library("tensorrt", "TensorRT", "10.9"),
)
_ORT = (Library("onnxruntime", "ONNX Runtime", "1.31"),)

ROWS = (
    EngineRow("tensorrt", "gpu", "tensorrt", _tensorrt, _TENSORRT),
    EngineRow("ort", "gpu", "ort-cuda", partial(_ort, "gpu"), _ORT),
    EngineRow("ort", "cpu", "ort-cpu", partial(_ort, "cpu"), _ORT),
)
# By backend, for `open_artifact`: a plan demands other things than a graph.
DEMANDS: Mapping[str, ReadDemands] = MappingProxyType({"tensorrt": _plan_demands})


def rank(variant: Variant) -> tuple[bool, int] | None:
    """Return what orders variants, the fastest first; None for one that nothing here opens.

    Engines of other distributions come behind ours of the same device.
    """
    on_cpu = variant.device == "cpu"
    for index, row in enumerate(ROWS):
        if (row.backend, row.device) == (variant.backend, variant.device):
            return on_cpu, index
    return (on_cpu, len(ROWS)) if _entry_points(variant) else None


def find_loader(variant: Variant) -> Loader:
    """Import what opens a variant that has a rank.

    Raises:
        EnvironmentProblem: It is of another distribution, and cannot be used.
    """
    for row in ROWS:
        if (row.backend, row.device) == (variant.backend, variant.device):
            return row.load()
    entry, *others = _entry_points(variant)
    if others:
        raise _refusal(entry, f"{_distribution(others[0])} brings one of the same name")
    try:
        found = entry.load()
        if not isinstance(found, EngineRow):
            raise _refusal(entry, f"it is of type {type(found).__name__}, and no EngineRow")
        if (found.backend, found.device) != (variant.backend, variant.device):
            raise _refusal(entry, f"its row is for {found.backend!r} on {found.device!r}")
        return found.load()
    except EnvironmentProblem:
        raise
    # The code of others may raise anything, also SystemExit, when it is imported.
    except (Exception, SystemExit) as error:
        what = f"it cannot be imported: {type(error).__name__}: {error}"
        raise _refusal(entry, what) from error


def is_ours(variant: Variant) -> bool:
    """Return whether the variant's backend is one of this file, on whatever device."""
    return any(row.backend == variant.backend for row in ROWS)


def _entry_points(variant: Variant) -> list[EntryPoint]:
    if is_ours(variant):
        return []
    # It costs milliseconds, which only artifacts for engines of others pay.
    from importlib import metadata

    name = f"{variant.backend}-{variant.device}"
    return sorted(metadata.entry_points(group=GROUP, name=name), key=_distribution)


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


def _refusal(entry: EntryPoint, what: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the engine {entry.name!r} of {_distribution(entry)} cannot be used: {what}",
        where=f"entry point {entry.name} = {entry.value}",
        fix="correct or uninstall that distribution, or load another variant",
    )
