"""A .pt2 exported program as a source.

`torch.export.load` unpickles whatever an archive marks as a pickle, so the archive is read
first and refused when it holds one. Shape expressions in the archive are still evaluated by
PyTorch: a .pt2 file deserves the same trust as a recipe.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils import _pytree as pytree

from leptonc.compiler.errors import SourceError
from leptonc.compiler.sources.dimensions import DynamicDim
from leptonc.compiler.sources.files import hash_file, pickle_refused, require_file
from leptonc.compiler.sources.source import Source
from leptonc.compiler.sources.torch_reference import as_array, named_outputs
from leptonc.runtime.arrays import Arrays, load_named_arrays
from leptonc.runtime.errors import UnsupportedError

# torch.export writes "no upper bound" as a very large integer.
UNBOUNDED = 1 << 31


@dataclass(frozen=True)
class ProgramReference:
    """Calls an exported program with arrays in the order of its own inputs."""

    module: torch.nn.Module
    in_spec: pytree.TreeSpec
    names: tuple[str, ...]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run the program on `inputs`, by name."""
        leaves = [torch.from_numpy(np.array(inputs[name], copy=True)) for name in self.names]
        args, kwargs = pytree.tree_unflatten(leaves, self.in_spec)
        with torch.no_grad():
            result = self.module(*args, **kwargs)
        return {name: as_array(name, tensor) for name, tensor in named_outputs(result)}


def open_exported_program(spec: str, inputs: Path | None) -> Source:
    """Load a .pt2 file written by `torch.export.save`.

    Raises:
        SourceError: Not an exported program, or one that this PyTorch cannot read.
        PickleRefusedError: The archive holds pickled objects.
    """
    path = Path(spec)
    require_file(path)
    _refuse_pickles(path)
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise SourceError(
            f"torch.export.load cannot read it: {error}",
            where=spec,
            fix=f"write it again with torch.export.save() of PyTorch {torch.__version__}",
        ) from error
    names = tuple(str(name) for name in program.graph_signature.user_inputs)
    example = load_named_arrays(inputs, names) if inputs else _example(program, names, spec)
    digest = hashlib.sha256()
    hash_file(path, digest)
    weights = {tensor.data_ptr(): tensor.nbytes for tensor in program.state_dict.values()}
    return Source(
        kind="exported-program",
        name=path.stem,
        inputs=example,
        axes=_axes(program, names),
        reference=ProgramReference(program.module(), program.call_spec.in_spec, names),
        fingerprint=digest.hexdigest(),
        program=program,
        weight_bytes=sum(weights.values()),
    )


def _refuse_pickles(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                _check_member(archive, member, path)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, RuntimeError) as error:
        raise SourceError(
            f"this is not an exported program: {error}",
            where=str(path),
            fix="write it with torch.export.save(program, path)",
        ) from error


def _check_member(archive: zipfile.ZipFile, member: str, path: Path) -> None:
    if member.endswith(("_weights_config.json", "_constants_config.json")):
        config = json.loads(archive.read(member)).get("config", {})
        for name, entry in config.items():
            if entry.get("use_pickle") or "tensor_meta" not in entry or not entry["tensor_meta"]:
                raise pickle_refused(f"{path}: {name!r} in {member}")
        return
    if "/data/sample_inputs/" in member:
        try:
            torch.load(io.BytesIO(archive.read(member)), weights_only=True)
        except pickle.UnpicklingError as error:
            raise pickle_refused(f"{path}: {member}") from error
        return
    if member.endswith((".pt", ".pkl", ".pickle")):
        raise pickle_refused(f"{path}: {member}")


def _example(program: torch.export.ExportedProgram, names: tuple[str, ...], spec: str) -> Arrays:
    if program.example_inputs is None:
        raise SourceError(
            "the exported program carries no example inputs",
            where=spec,
            fix="give some: --inputs example.npz",
        )
    leaves, _ = pytree.tree_flatten(program.example_inputs)
    for name, leaf in zip(names, leaves, strict=True):
        if not isinstance(leaf, torch.Tensor):
            raise SourceError(
                f"the program's input {name!r} is a {type(leaf).__name__}, not a tensor",
                where=spec,
                fix="export it with tensors only as inputs",
            )
    return {name: as_array(name, leaf) for name, leaf in zip(names, leaves, strict=True)}


def _axes(
    program: torch.export.ExportedProgram, names: tuple[str, ...]
) -> dict[str, dict[int, DynamicDim]]:
    """Read the dynamic dimensions; a program keeps their bounds but not the user's names."""
    bounds = {str(symbol): bound for symbol, bound in program.range_constraints.items()}
    axes: dict[str, dict[int, DynamicDim]] = {}
    titles: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in names:
            continue
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, int):
                continue
            symbol = str(size)
            if not symbol.isidentifier():
                raise UnsupportedError(
                    f"axis {axis} of input {node.name!r} has the size {symbol}, which depends on "
                    "another dimension",
                    where=f"input {node.name!r}",
                    fix="export the program with sizes that are free, or equal to one another",
                )
            title = titles.setdefault(symbol, f"{node.name}_dim_{axis}")
            axes.setdefault(node.name, {})[axis] = _dim(title, bounds.get(symbol))
    return axes


def _dim(title: str, bound: object) -> DynamicDim:
    low = _finite(getattr(bound, "lower", None))
    return DynamicDim(title, max(1, low or 1), _finite(getattr(bound, "upper", None)))


def _finite(value: object) -> int | None:
    """Return a bound as an int, or None where torch.export's range has no such end."""
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if number < UNBOUNDED else None
