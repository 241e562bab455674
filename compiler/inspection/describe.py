"""What is inside an artifact or an .onnx file: interface, sizes, and the evidence.

An artifact's hashes are checked first, so what is shown is what was written. Graphs are read
without their weights: an artifact of many gigabytes costs no more than one of a few.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from leptonc.compiler.inspection.tables import render
from leptonc.runtime.artifact.reader import open_artifact
from leptonc.runtime.engines.loaders import DEMANDS
from leptonc.runtime.errors import InputError

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class OperatorSize:
    """All nodes of one operator type, subgraphs and functions included.

    Attributes:
        op: `Conv`, or `com.microsoft.Gelu` outside ONNX's own domain.
        nodes: How many there are.
        weight_bytes: Weights that such a node is the first to read.
    """

    op: str
    nodes: int
    weight_bytes: int


@dataclass(frozen=True)
class WeightSize:
    """One weight; `share` is its part of all weight bytes of the variant."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    share: float


@dataclass(frozen=True)
class VariantSize:
    """One variant, or the whole of an .onnx file.

    Attributes:
        name: The variant's name; `graph` for an .onnx file.
        about: Backend, device, precision, engine options: text by key.
        demands: What it needs from a machine.
        operators: Largest weight first, then most nodes.
        weights: Largest first.
    """

    name: str
    about: Mapping[str, Any]
    demands: Mapping[str, Any]
    operators: tuple[OperatorSize, ...]
    weights: tuple[WeightSize, ...]


@dataclass(frozen=True)
class SectionSize:
    """A run of bytes in the file."""

    name: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class Inspection:
    """Everything that `leptonc inspect` shows.

    Attributes:
        path: The file as it was given.
        kind: `artifact` or `onnx`.
        bytes: The size of the file; for .onnx without its external data.
        verified: Whether every hash was checked; an .onnx file has none.
        name: The model's name.
        compiled_by: The version of leptonc, or None for an .onnx file.
        signature: As in the manifest (docs/artifact-format.md).
        variants: One per payload.
        source: Kind and fingerprint of what was compiled.
        passes: What each pass did, as in the manifest.
        plugins: The passes of other distributions among them, as in the manifest.
        quantization: How each layer of each quantised variant is computed, as in the manifest.
        evidence: What the compiler saw, as in the manifest.
        sections: The layout of the file.
    """

    path: str
    kind: str
    bytes: int
    verified: bool
    name: str
    compiled_by: str | None
    signature: Mapping[str, Any]
    variants: tuple[VariantSize, ...]
    source: Mapping[str, Any] = field(default_factory=dict)
    passes: tuple[Mapping[str, Any], ...] = ()
    plugins: tuple[Mapping[str, Any], ...] = ()
    quantization: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    sections: tuple[SectionSize, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return plain dicts, lists, strings and numbers."""
        return dataclasses.asdict(self)

    def render(self, console: Console) -> None:
        """Print it for people."""
        render(self.to_json(), console)


def describe(path: Path | str) -> Inspection:
    """Read `path` and say what is in it.

    Raises:
        InputError: Neither .lepton nor .onnx.
        ArtifactError: Not a valid artifact, or not the bytes that were written.
        OnnxFileError: Not a valid .onnx file.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return _describe_onnx(path)
    if path.suffix != ".lepton" and path.is_dir():
        raise InputError("this is a folder", where=str(path), fix="give a .lepton or an .onnx file")
    return _describe_artifact(path)


def _describe_artifact(path: Path) -> Inspection:
    with open_artifact(path, DEMANDS) as artifact:
        artifact.verify()
        manifest = artifact.manifest.raw
        sections = tuple(
            SectionSize(section.name, section.offset, section.length)
            for section in artifact.sections.values()
        )
    return Inspection(
        path=str(path),
        kind="artifact",
        bytes=path.stat().st_size,
        verified=True,
        name=manifest["name"],
        compiled_by=manifest["leptonc"],
        signature=manifest["signature"],
        source=manifest.get("source", {}),
        variants=_variants(path, manifest["variants"]),
        passes=tuple(manifest.get("passes", ())),
        plugins=tuple(manifest.get("plugins", ())),
        quantization=manifest.get("quantization", {}),
        evidence=manifest.get("evidence", {}),
        sections=sections,
    )


def _variants(path: Path, entries: Iterable[Mapping[str, Any]]) -> tuple[VariantSize, ...]:
    from leptonc.backends.unpack import unpack

    graphs = unpack(path)
    found = []
    for entry in entries:
        about = {key: entry[key] for key in ("backend", "device", "precision", "options")}
        graph = graphs.get(entry["name"])
        found.append(
            _plan(about, entry)
            if graph is None
            else _measure(entry["name"], about, entry["demands"], graph)
        )
    return tuple(found)


def _plan(about: Mapping[str, Any], entry: Mapping[str, Any]) -> VariantSize:
    """Return what is known of a plan, which only its engine can read: its own weights."""
    weights = _weights(
        (weight["name"], weight["dtype"], tuple(weight["shape"]), weight["length"])
        for weight in entry["weights"]
    )
    return VariantSize(entry["name"], about, entry["demands"], (), weights)


def _describe_onnx(path: Path) -> Inspection:
    from leptonc.compiler.export.interface import signature_entry, signature_of
    from leptonc.compiler.sources.files import require_file
    from leptonc.compiler.sources.onnx_file import read_onnx

    require_file(path)
    model = read_onnx(path)
    opset = {domain or "ai.onnx": version for domain, version in model.opset_imports.items()}
    whole = _measure(
        "graph",
        {"backend": "onnx", "producer": model.producer_name or "unknown"},
        {"opset": opset, "ir_version": model.ir_version},
        model,
    )
    return Inspection(
        path=str(path),
        kind="onnx",
        bytes=path.stat().st_size,
        verified=False,
        name=model.graph.name or path.stem,
        compiled_by=None,
        signature=signature_entry(signature_of(model, {})),
        variants=(whole,),
    )


def _measure(
    name: str, about: Mapping[str, Any], demands: Mapping[str, Any], model: ir.Model
) -> VariantSize:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    tensors = ((str(value.name), value.const_value) for value in values)
    weights = _weights(
        (name, _dtype_text(tensor.dtype), tuple(tensor.shape.numpy()), tensor.nbytes)
        for name, tensor in tensors
        if tensor is not None
    )
    sizes = {weight.name: weight.bytes for weight in weights}
    return VariantSize(name, about, demands, _operators(model, sizes), weights)


def _weights(known: Iterable[tuple[str, str, tuple[int, ...], int]]) -> tuple[WeightSize, ...]:
    """Return weights given as name, element type, shape and bytes, the largest first."""
    found = list(known)
    total = sum(size for *_, size in found) or 1
    weights = (WeightSize(*each, share=each[-1] / total) for each in found)
    return tuple(sorted(weights, key=lambda each: (-each.bytes, each.name)))


def _dtype_text(dtype: ir.DataType) -> str:
    return "str" if dtype.name == "STRING" else str(dtype.numpy().name)


def _operators(model: ir.Model, sizes: Mapping[str, int]) -> tuple[OperatorSize, ...]:
    nodes: dict[str, int] = {}
    read: dict[str, int] = {}
    unread = dict(sizes)
    functions = model.functions.values()
    for node in chain(model.graph.all_nodes(), *(each.all_nodes() for each in functions)):
        op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        nodes[op] = nodes.get(op, 0) + 1
        mine = sum(unread.pop(str(value.name), 0) for value in node.inputs if value is not None)
        read[op] = read.get(op, 0) + mine
    found = (OperatorSize(op, count, read[op]) for op, count in nodes.items())
    return tuple(sorted(found, key=lambda each: (-each.weight_bytes, -each.nodes, each.op)))
