"""Lays payloads out as sections of an artifact; equal weights are stored once.

Weights are equal when their bytes are: a tied embedding, or the same matrix in two variants,
is one run of bytes that several entries point at, whatever their shapes and types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from leptonc.backends.base import Payload, PayloadWeight
from leptonc.runtime.artifact.writer import SectionData

WEIGHTS = "weights"
# One cache line, and the widest vector an engine loads.
WEIGHT_ALIGNMENT = 64


@dataclass(frozen=True)
class _Stored:
    offset: int
    weight: PayloadWeight


def pack(payloads: Sequence[Payload]) -> tuple[list[SectionData], list[dict[str, Any]]]:
    """Return the sections of an artifact and the manifest's entries of its variants.

    The sections are the graph of each payload, in order, then all weights in one section, in
    order of first use.
    """
    stored: dict[bytes, _Stored] = {}
    end = 0
    variants: list[dict[str, Any]] = []
    for payload in payloads:
        entries: list[dict[str, Any]] = []
        for weight in payload.weights:
            digest = _digest(weight)
            if digest not in stored:
                offset = -(-end // WEIGHT_ALIGNMENT) * WEIGHT_ALIGNMENT
                stored[digest] = _Stored(offset, weight)
                end = offset + weight.tensor.nbytes
            entries.append(_entry(weight, stored[digest].offset))
        variants.append({**payload.variant, "weights": entries})
    sections = [
        SectionData(payload.variant["graph"], len(payload.graph), partial(_once, payload.graph))
        for payload in payloads
    ]
    if stored:
        sections.append(SectionData(WEIGHTS, end, partial(_weights, tuple(stored.values()))))
    return sections, variants


def _entry(weight: PayloadWeight, offset: int) -> dict[str, Any]:
    return {
        "name": weight.name,
        "dtype": weight.dtype,
        "shape": [int(size) for size in weight.tensor.shape.numpy()],
        "section": WEIGHTS,
        "offset": offset,
        "length": weight.tensor.nbytes,
    }


def _digest(weight: PayloadWeight) -> bytes:
    digest = sha256()
    for piece in weight.chunks():
        digest.update(piece)
    return digest.digest()


def _once(data: bytes) -> Iterator[bytes]:
    yield data


def _weights(stored: Sequence[_Stored]) -> Iterator[bytes | memoryview]:
    end = 0
    for entry in stored:
        yield bytes(entry.offset - end)
        yield from entry.weight.chunks()
        end = entry.offset + entry.weight.tensor.nbytes
