"""What the manifest of an artifact says, checked before any of it is used.

The manifest is JSON; this module turns it into frozen values. Keys that are not listed here
are kept for people and tools and never reach the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias, TypeVar

from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.artifact.layout import MAX_FILE, Section, is_count
from leptonc.runtime.artifact.signature import Dim, Shape, Signature, TensorSpec
from leptonc.runtime.errors import ArtifactError

T = TypeVar("T")
Fail: TypeAlias = Callable[[str, str], NoReturn]
# Reads the "demands" of a variant whose engine has other ones than a graph's. It gets the JSON
# object, the signature, the object's path in the manifest, and what refuses a path for a reason.
ReadDemands: TypeAlias = Callable[[Mapping[str, Any], Signature, str, Fail], object]

MAX_RANK = 32
_FIX = "the file is damaged or was not written by leptonc: compile it again"


@dataclass(frozen=True)
class Weight:
    """Where the bytes of one weight lie.

    Attributes:
        name: The initialiser in the variant's graph.
        dtype: A key of `ELEMENT_TYPES`, not "str".
        shape: Sizes.
        section: The section that holds it.
        offset: Bytes from the start of the section.
        length: Bytes: the product of the shape times the size of one element.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    section: str
    offset: int
    length: int


@dataclass(frozen=True)
class Demands:
    """What a variant needs from the machine that loads it.

    Attributes:
        engine: The engine's name.
        engine_min: The oldest version that loads it; empty where the engine reads its demands.
        opset: The operator set of the graph; 0 for a payload that is none.
        instructions: Instruction sets of the CPU.
        own: What the engine read of its demands; else all of them, as they stand in the manifest.
    """

    engine: str
    engine_min: tuple[int, ...]
    opset: int
    instructions: tuple[str, ...]
    own: Any


@dataclass(frozen=True)
class Variant:
    """One payload for one target.

    Attributes:
        name: Unique in the artifact, e.g. "ort-cpu".
        backend: Which engine loader takes it.
        device: "cpu" or "gpu".
        precision: "fp32", "fp16", "int8", ...
        demands: What it needs from the machine.
        graph: The section with the engine's graph.
        options: Settings for the engine, as its loader understands them.
        weights: The initialisers that are not in the graph section.
    """

    name: str
    backend: str
    device: str
    precision: str
    demands: Demands
    graph: str
    options: Mapping[str, str]
    weights: tuple[Weight, ...]


@dataclass(frozen=True)
class Manifest:
    """The checked manifest; `raw` is the JSON value it was read from."""

    name: str
    signature: Signature
    variants: tuple[Variant, ...]
    raw: Mapping[str, Any]


def parse_manifest(
    value: Any,
    sections: Mapping[str, Section],
    where: str,
    demands: Mapping[str, ReadDemands],
) -> Manifest:
    """Check a manifest against the sections of its file.

    Args:
        value: The JSON value.
        sections: By name.
        where: The file.
        demands: What reads the demands of a backend that has its own.

    Raises:
        ArtifactError: A key is missing or has a value it cannot have; `where` says which.
    """
    return _Reader(where, sections, demands).manifest(value)


@dataclass(frozen=True)
class _Reader:
    where: str
    sections: Mapping[str, Section]
    own_demands: Mapping[str, ReadDemands]

    def fail(self, path: str, what: str) -> NoReturn:
        raise ArtifactError(what, where=f"{self.where}, manifest {path}", fix=_FIX)

    def get(self, value: Any, key: str, path: str) -> Any:
        if not isinstance(value, dict):
            self.fail(path, f"{type(value).__name__} where an object belongs")
        if key not in value:
            self.fail(path, f"the key {key!r} is missing")
        return value[key]

    def text(self, value: Any, key: str, path: str) -> str:
        found = self.get(value, key, path)
        if not isinstance(found, str) or not found:
            self.fail(f"{path}.{key}", f"{found!r} is not a name")
        return found

    def count(self, value: Any, key: str, path: str) -> int:
        found = self.get(value, key, path)
        if not is_count(found):
            self.fail(f"{path}.{key}", f"{found!r} is not an integer from 0 to 2**62")
        return int(found)

    def items(
        self, value: Any, key: str, path: str, parse: Callable[[Any, str], T]
    ) -> tuple[T, ...]:
        found = self.get(value, key, path)
        if not isinstance(found, list):
            self.fail(f"{path}.{key}", f"{type(found).__name__} where a list belongs")
        return tuple(parse(entry, f"{path}.{key}[{i}]") for i, entry in enumerate(found))

    def unique(self, names: list[str], path: str) -> None:
        for index, name in enumerate(names):
            if name in names[:index]:
                self.fail(path, f"the name {name!r} occurs twice")

    def manifest(self, value: Any) -> Manifest:
        self.text(value, "leptonc", "$")
        name = self.text(value, "name", "$")
        signature = self.signature(self.get(value, "signature", "$"))
        variants = self.items(value, "variants", "$", partial(self.variant, signature))
        if not variants:
            self.fail("$.variants", "there is no variant")
        self.unique([variant.name for variant in variants], "$.variants")
        return Manifest(name, signature, variants, MappingProxyType(value))

    def signature(self, value: Any) -> Signature:
        path = "$.signature"
        inputs = self.items(value, "inputs", path, self.tensor)
        outputs = self.items(value, "outputs", path, self.tensor)
        if not outputs:
            self.fail(f"{path}.outputs", "there is no output")
        self.unique([spec.name for spec in inputs], f"{path}.inputs")
        self.unique([spec.name for spec in outputs], f"{path}.outputs")
        bounds: dict[str, Dim] = {}
        for dim in (dim for spec in inputs for dim in spec.shape if isinstance(dim, Dim)):
            if bounds.setdefault(dim.name, dim) != dim:
                self.fail(path, f"the dimension {dim.name!r} has two different bounds")
        return Signature(inputs, outputs)

    def tensor(self, value: Any, path: str) -> TensorSpec:
        name = self.text(value, "name", path)
        dtype = self.text(value, "dtype", path)
        if dtype not in ELEMENT_TYPES or not ELEMENT_TYPES[dtype].native:
            self.fail(f"{path}.dtype", f"{dtype!r} is not an element type of NumPy")
        shape: Shape = self.items(value, "shape", path, self.dim)
        if len(shape) > MAX_RANK:
            self.fail(f"{path}.shape", f"rank {len(shape)}; at most {MAX_RANK} is allowed")
        return TensorSpec(name, dtype, shape)

    def dim(self, value: Any, path: str) -> int | Dim:
        if is_count(value):
            return int(value)
        if not isinstance(value, dict):
            self.fail(path, f"{value!r} is neither a size nor a named dimension")
        name = self.text(value, "name", path)
        low = self.count(value, "min", path)
        if self.get(value, "max", path) is None:
            return Dim(name, low, None)
        high = self.count(value, "max", path)
        if high < low:
            self.fail(path, f"the bound {high} is below the bound {low}")
        return Dim(name, low, high)

    def variant(self, signature: Signature, value: Any, path: str) -> Variant:
        graph = self.text(value, "graph", path)
        if graph not in self.sections:
            self.fail(f"{path}.graph", f"there is no section {graph!r}")
        options = self.get(value, "options", path)
        if not isinstance(options, dict) or not all(isinstance(v, str) for v in options.values()):
            self.fail(f"{path}.options", "not an object of texts")
        weights = self.items(value, "weights", path, self.weight)
        names = {weight.name for weight in weights}
        if len(names) != len(weights):
            self.unique([weight.name for weight in weights], f"{path}.weights")
        backend = self.text(value, "backend", path)
        return Variant(
            self.text(value, "name", path),
            backend,
            self.text(value, "device", path),
            self.text(value, "precision", path),
            self.demands(self.get(value, "demands", path), f"{path}.demands", backend, signature),
            graph,
            MappingProxyType(options),
            weights,
        )

    def demands(self, value: Any, path: str, backend: str, signature: Signature) -> Demands:
        engine = self.text(value, "engine", path)
        read = self.own_demands.get(backend)
        if read is not None:
            return Demands(engine, (), 0, (), read(value, signature, path, self.fail))
        version = self.text(value, "engine_min", path)
        parts = version.split(".")
        if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
            self.fail(f"{path}.engine_min", f"{version!r} is not a version")
        instructions = self.items(value, "instructions", path, self.instruction)
        return Demands(
            engine,
            tuple(int(part) for part in parts),
            self.count(value, "opset", path),
            instructions,
            value,
        )

    def instruction(self, value: Any, path: str) -> str:
        if not isinstance(value, str) or not value:
            self.fail(path, f"{value!r} is not the name of an instruction set")
        return value

    def size(self, value: Any, path: str) -> int:
        if not is_count(value):
            self.fail(path, f"{value!r} is not an integer from 0 to 2**62")
        return int(value)

    def weight(self, value: Any, path: str) -> Weight:
        name = self.text(value, "name", path)
        path = f"{path} ({name!r})"
        dtype = self.text(value, "dtype", path)
        element = ELEMENT_TYPES.get(dtype)
        if element is None or element.itemsize is None:
            self.fail(f"{path}.dtype", f"{dtype!r} is not an element type of a weight")
        shape = self.items(value, "shape", path, self.size)
        # Python's integers do not overflow; the bound keeps the engine's from doing so.
        needed = prod(shape) * element.itemsize
        if len(shape) > MAX_RANK or needed > MAX_FILE:
            self.fail(f"{path}.shape", f"{list(shape)} is larger than any file")
        section = self.sections.get(self.text(value, "section", path))
        if section is None:
            self.fail(f"{path}.section", f"there is no section {value['section']!r}")
        offset, length = self.count(value, "offset", path), self.count(value, "length", path)
        if length != needed:
            self.fail(
                f"{path}.length",
                f"{length} bytes for shape {list(shape)} of {dtype}, which needs {needed}",
            )
        if offset + length > section.length:
            self.fail(
                path,
                f"the weight ends at byte {offset + length} of section {section.name!r}, "
                f"which has {section.length}",
            )
        if offset % element.storage.itemsize:
            self.fail(f"{path}.offset", f"{offset} is not a multiple of the element's size")
        return Weight(name, dtype, shape, section.name, offset, length)
