"""All that an artifact says about itself: the one place where the manifest is written.

What a variant says of its engine is written by its backend, and what each tensor and weight is
lies in the file; both are handed in here. The file is read by `leptonc.runtime.artifact.manifest`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from leptonc.backends.base import Payload
from leptonc.compiler.accuracy.costs import Measured
from leptonc.compiler.accuracy.search import SearchResult
from leptonc.compiler.accuracy.stage import Settled
from leptonc.compiler.export.interface import signature_entry, signature_of
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.sources.source import Source
from leptonc.compiler.subject import Subject
from leptonc.compiler.verification.proof import Proof
from leptonc.passes.base import PassStats
from leptonc.passes.plugins import Plugin
from leptonc.passes.quantize.methods import FLOAT, STATIC
from leptonc.passes.quantize.plan import Layer, LayerChoice, find_layers
from leptonc.passes.ranges.table import Ranges

# Nodes of one kind that an entry names, at most: the manifest stays small beside the weights.
NAMED = 1000
TOOLS = ("leptonc", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
BY_RUNTIME = "the artifact, loaded by the runtime"
BY_GRAPH = (
    "the graph that the engine was given, on ONNX Runtime's CPU in float32, rounded where the "
    "engine rounds"
)


@dataclass(frozen=True, eq=False)
class Manifest:
    """What is known of an artifact.

    Attributes:
        subject: What it was made from; its graph has the interface.
        plugins: The passes of others that took part.
        payloads: Its variants.
        passes: What each pass did, by target.
        quantization: Of each payload, from `quantization_entry`; empty for one in floats.
        variants: From `pack`; empty until the artifact is written.
        proofs: Of each variant; None where nothing was proven.
        tolerance: What still counted as the same answer.
    """

    subject: Subject
    plugins: Sequence[Plugin]
    payloads: Sequence[Payload]
    passes: Mapping[str, Sequence[PassStats]]
    quantization: Sequence[Mapping[str, Any]]
    tolerance: Tolerance
    variants: Sequence[Mapping[str, Any]] = ()
    proofs: Sequence[Proof] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object that the file holds."""
        source = self.subject.source
        quantization = _by_variant(self.payloads, self.quantization)
        return {
            "leptonc": metadata.version("leptonc"),
            "name": source.name,
            "signature": signature_entry(signature_of(self.subject.model, source.axes)),
            "variants": list(self.variants),
            "source": {"kind": source.kind, "fingerprint": source.fingerprint},
            "passes": _pass_entries(self.passes),
            "plugins": [plugin.to_json() for plugin in self.plugins],
            "evidence": self._evidence(),
            **({"quantization": quantization} if quantization else {}),
        }

    def _evidence(self) -> dict[str, Any]:
        integers = _by_variant(self.payloads, [dict(each.integers) for each in self.payloads])
        return {
            "verification": self._verification(),
            "placement": {each.variant["name"]: each.placement for each in self.payloads},
            **({"integers": integers} if integers else {}),
            "tools": _tool_versions(),
        }

    def _verification(self) -> dict[str, Any]:
        """Return how the variants compared; the first one's trials stand at the top."""
        if self.proofs is None:
            return {"verified": False, "reason": "switched off with --no-verify"}
        return {
            "verified": True,
            "reference": _reference(self.subject.source),
            "tolerance": {"sqnr_db": self.tolerance.sqnr_db, "relative": self.tolerance.relative},
            "trials": _trials(self.proofs[0]),
            "variants": [
                {
                    "variant": proof.variant,
                    "engine_ran": proof.not_run is None,
                    "reason": proof.not_run,
                    "checked": BY_GRAPH if proof.not_run else BY_RUNTIME,
                    "trials": _trials(proof),
                }
                for proof in self.proofs
            ],
        }


def _by_variant(
    payloads: Sequence[Payload], entries: Sequence[Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Return the entries that are not empty by the names of their variants."""
    pairs = zip(payloads, entries, strict=True)
    return {payload.variant["name"]: entry for payload, entry in pairs if entry}


def _reference(source: Source) -> str:
    if source.kind == "onnx":
        return "the source graph on ONNX Runtime, unoptimised"
    return "the source module on PyTorch"


def _trials(proof: Proof) -> list[dict[str, object]]:
    return [result.to_json() for result in proof.results]


def _tool_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for tool in TOOLS:
        try:
            versions[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _pass_entries(passes: Mapping[str, Sequence[PassStats]]) -> list[dict[str, Any]]:
    """Return an entry for each run of a pass, with its target where there are several."""
    several = len(passes) > 1
    return [
        {**pass_entry(stats), **({"target": target} if several else {})}
        for target, runs in passes.items()
        for stats in runs
    ]


def pass_entry(stats: PassStats) -> dict[str, Any]:
    """Return the entry of one run of a pass.

    Counts are always complete. Of each kind (fired, near misses, removed, rewritten) the entry
    names at most `NAMED` nodes, the first ones.
    """
    fired: dict[str, list[str]] = {}
    for firing in stats.fired:
        fired.setdefault(firing.rule, []).append(firing.node)
    refused: dict[tuple[str, str], list[str]] = {}
    for refusal in stats.refused:
        refused.setdefault((refusal.rule, refusal.reason), []).append(refusal.node)
    return {
        "name": stats.name,
        "counts": dict(stats.counts),
        "nodes_before": stats.nodes_before,
        "nodes_after": stats.nodes_after,
        "fired": _named([({"rule": rule}, nodes) for rule, nodes in sorted(fired.items())]),
        "refused": _named(
            [
                ({"rule": rule, "reason": reason}, nodes)
                for (rule, reason), nodes in sorted(refused.items())
            ]
        ),
        "refused_count": len(stats.refused),
        "removed": _listed(stats.removed),
        "rewritten": _listed(stats.rewritten),
    }


def _listed(nodes: Sequence[str]) -> dict[str, Any]:
    return {"count": len(nodes), "nodes": list(nodes[:NAMED])}


def _named(groups: Iterable[tuple[dict[str, str], Sequence[str]]]) -> list[dict[str, Any]]:
    """Return the groups with their counts and nodes, until `NAMED` nodes are named."""
    found: list[dict[str, Any]] = []
    room = NAMED
    for group, nodes in groups:
        named = _listed(nodes[:room])
        room -= named["count"]
        # A rule is listed when its nodes are not; a reason without a node helps nobody.
        if named["count"] or "reason" not in group:
            found.append({**group, **named, "count": len(nodes)})
    return found


def quantization_entry(settings: CompileSettings, settled: Settled) -> dict[str, Any]:
    """Return what is said of a quantised variant: its layers, its data, the search.

    Each layer has its operator, method and bits; with measurements also the SQNR of its output
    in dB and the part of the time of all layers that it takes, in the graph of the plan.
    """
    ranges, measured = settled.floats.ranges, settled.measured
    entry: dict[str, Any] = {
        "precision": settings.precision,
        "layers": _layer_entries(settled),
        "calibration": None
        if ranges is None
        else {"samples": ranges.samples, "data": f"{ranges.data:064x}"},
    }
    if measured is not None:
        entry["latency"] = "measured" if settled.timed else "estimated"
    if settled.search is not None:
        entry |= _search_entry(settings, settled.search)
    return entry


def _search_entry(settings: CompileSettings, search: SearchResult) -> dict[str, Any]:
    figures = sorted(search.best.figures.items())
    return {
        "goals": [goal.text for goal in settings.goals],
        "reached": search.reached,
        "figures": {
            name: float(f"{value:.6g}") if np.isfinite(value) else None for name, value in figures
        },
        "evaluations": len(search.evaluations),
    }


def _layer_entries(settled: Settled) -> list[dict[str, Any]]:
    floats, measured = settled.floats, settled.measured
    layers = {layer.name: layer for layer in find_layers(floats.model)}
    entries = [
        _layer_entry(choice, layers[choice.layer], floats.ranges) for choice in floats.plan.choices
    ]
    if measured is not None:
        seconds = [_seconds(choice, measured) for choice in floats.plan.choices]
        whole = sum(seconds)
        for entry, choice, taken in zip(entries, floats.plan.choices, seconds, strict=True):
            error = measured.errors.get(choice.layer) if choice.method != FLOAT else None
            sqnr = None if error is None else error.sqnr_db
            entry["sqnr_db"] = None if sqnr is None else round(sqnr, 1)
            entry["latency_share"] = round(taken / whole if whole else 0.0, 4)
    return entries


def _layer_entry(choice: LayerChoice, layer: Layer, ranges: Ranges | None) -> dict[str, Any]:
    entry = choice.to_json() | {"operator": layer.operator, "parameters": layer.parameters}
    if choice.method == STATIC and ranges is not None:
        tensor = layer.inputs[0]
        low, high = ranges.range(
            tensor, choice.range_method, percent=choice.percent, symmetric=choice.symmetric
        )
        entry["range"] = {"tensor": tensor, "low": low, "high": high}
    return entry


def _seconds(choice: LayerChoice, measured: Measured) -> float:
    seconds = measured.float_seconds if choice.method == FLOAT else measured.plan_seconds
    return seconds.get(choice.layer, 0.0)
