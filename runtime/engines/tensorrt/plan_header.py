"""Compares the header of a TensorRT-RTX plan with what the manifest says of it.

A plan is checked by its digest; this only catches a manifest that was written for another plan.
The layout was found by looking at plans of version 1.7 and is not documented by NVIDIA, so a
header without the marks is refused for the flavour it is known of, and nothing else is concluded.

    bytes 0-3    "vtrt"                      bytes 24-27  version, one byte for each number
    bytes 16-23  length of the plan          bytes 28-31  "vtrt"
                                             bytes 32-35  compute capabilities, one bit for each
All numbers are little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass

from leptonc.runtime.engines.tensorrt.plan_demands import (
    RTX_CAPABILITIES,
    TENSORRT_RTX,
    PlanDemands,
)
from leptonc.runtime.errors import ArtifactError

HEADER_BYTES = 64
_MARK = b"vtrt"
_FIX = "compile the model again"


@dataclass(frozen=True)
class PlanHeader:
    """What a plan's first bytes say.

    Attributes:
        length: Bytes of the whole plan.
        version: Of the engine that built it.
        capabilities: A bit for each compute capability.
    """

    length: int
    version: tuple[int, ...]
    capabilities: int


def read_plan_header(plan: bytes | memoryview, where: str) -> PlanHeader:
    """Read the header of a TensorRT-RTX plan.

    Raises:
        ArtifactError: It is too short, or its marks are missing.
    """
    start = bytes(plan[:HEADER_BYTES])
    if len(start) < HEADER_BYTES or start[:4] != _MARK or start[28:32] != _MARK:
        raise ArtifactError("the payload is not a plan of TensorRT-RTX", where=where, fix=_FIX)
    return PlanHeader(
        int.from_bytes(start[16:24], "little"),
        tuple(start[24:28]),
        int.from_bytes(start[32:36], "little"),
    )


def check_plan_header(plan: bytes | memoryview, demands: PlanDemands, where: str) -> None:
    """Refuse a plan that is not the one the manifest describes.

    Plans of TensorRT itself have another header, which is not known here; they pass.

    Raises:
        ArtifactError: Length, version or compute capabilities differ.
    """
    if demands.flavour != TENSORRT_RTX:
        return
    header = read_plan_header(plan, where)
    if header.length != len(plan):
        raise ArtifactError(
            f"the plan says that it has {header.length} bytes; {len(plan)} are there",
            where=where,
            fix=_FIX,
        )
    if header.version != demands.version:
        built = ".".join(map(str, header.version))
        raise ArtifactError(
            f"the plan was built by {demands.flavour} {built}; "
            f"the manifest says {demands.version_text}",
            where=where,
            fix=_FIX,
        )
    claimed = 0
    for capability in demands.compute_capabilities:
        claimed |= RTX_CAPABILITIES.get(capability, 1 << 31)
    if claimed & ~header.capabilities:
        there = [name for name, bit in RTX_CAPABILITIES.items() if bit & header.capabilities]
        raise ArtifactError(
            f"the plan has code for compute capability {', '.join(there) or 'none that is known'}; "
            f"the manifest says {', '.join(demands.compute_capabilities)}",
            where=where,
            fix=_FIX,
        )
