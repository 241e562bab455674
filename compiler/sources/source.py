"""Source: what a recipe, an .onnx file, an exported program or a model folder became.

One `Source` is all that the later stages see, so they do not care where a model came from.
It holds the thing to export, a reference that says what the right answer is, example inputs,
the dynamic dimensions with their bounds, and a fingerprint of code and weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from leptonc.compiler.errors import PickleRefusedError, SourceError
from leptonc.compiler.sources.dimensions import DynamicAxes
from leptonc.runtime.arrays import Arrays

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

SourceKind = Literal["recipe", "onnx", "exported-program", "hugging-face"]
PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".pt.tar", ".joblib")


class Reference(Protocol):
    """The source model as a function: named arrays in, named arrays out, in output order."""

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Compute the outputs for `inputs`."""
        ...


Evaluate = Callable[[Callable[[Mapping[str, np.ndarray]], Arrays]], dict[str, float]]


@dataclass(frozen=True)
class UserData:
    """Calibration data as the user's code gives it.

    Attributes:
        name: What it is called in messages.
        items: Batches, which nothing is known of yet.
        length: How many, if that can be told beforehand.
    """

    name: str
    items: Iterator[object]
    length: int | None = None


@dataclass(frozen=True)
class Source:
    """A model to compile.

    Attributes:
        kind: Where it came from.
        name: A short name for messages and for the manifest; never a path.
        inputs: Example inputs by name, in the model's input order.
        axes: The dynamic dimensions of each input; empty when every dimension is static.
        reference: Computes the right outputs.
        fingerprint: SHA-256, in hexadecimal, of the code and the weights.
        program: What to export, or None when `graph` is set.
        graph: An ONNX graph with lazy weights, or None when `program` is set.
        user_code: The folder whose files count as the user's own in error messages.
        weight_bytes: The size of parameters and buffers.
        calibration_data: Opens the recipe's own calibration data, from its start; None when
            the source brings none.
        evaluate: The recipe's own evaluation of a function from inputs to outputs; None when
            the source brings none.
        notes: What the user should know of how it was read, a sentence each.
    """

    kind: SourceKind
    name: str
    inputs: Arrays
    axes: DynamicAxes
    reference: Reference
    fingerprint: str
    program: torch.nn.Module | torch.export.ExportedProgram | None = None
    graph: ir.Model | None = None
    user_code: Path | None = None
    weight_bytes: int = 0
    calibration_data: Callable[[], UserData] | None = None
    evaluate: Evaluate | None = None
    notes: tuple[str, ...] = ()


def open_source(spec: str, *, inputs: Path | None = None) -> Source:
    """Open what the user named on the command line.

    Args:
        spec: A recipe file, `module:attribute`, an .onnx file, a .pt2 exported program, or a
            folder in Hugging Face's layout with safetensors weights.
        inputs: An .npz file with example inputs, for sources that carry none.

    Raises:
        SourceError: Nothing of that name exists, or it is of no known kind.
        PickleRefusedError: The source stores its weights as a pickle.
    """
    opener = _opener_for(spec)
    return opener(spec, inputs)


def _opener_for(spec: str) -> Callable[[str, Path | None], Source]:
    path = Path(spec)
    if path.is_dir():
        from leptonc.compiler.sources.model_folder import open_folder

        return open_folder
    lowered = spec.lower()
    if lowered.endswith(PICKLE_SUFFIXES):
        raise pickle_refused(spec)
    if lowered.endswith(".onnx"):
        from leptonc.compiler.sources.onnx_file import open_onnx

        return open_onnx
    if lowered.endswith(".pt2"):
        from leptonc.compiler.sources.exported_program import open_exported_program

        return open_exported_program
    if lowered.endswith(".py") or (":" in spec and not path.exists()):
        from leptonc.compiler.sources.recipe import open_recipe

        return open_recipe
    if not path.exists():
        raise SourceError(
            "there is no such file or folder",
            where=spec,
            fix="give a recipe.py, module:attribute, a .onnx or .pt2 file, or a model folder",
        )
    raise SourceError(
        f"cannot tell what a {path.suffix or 'file without a suffix'!r} source is",
        where=spec,
        fix="give a recipe.py, module:attribute, a .onnx or .pt2 file, or a model folder",
    )


def pickle_refused(where: str) -> PickleRefusedError:
    """Return the error for weights that are stored as a pickle."""
    return PickleRefusedError(
        "pickled checkpoints are refused: a pickle is a program, and reading it runs it",
        where=where,
        fix="convert the weights once, where you trust them: "
        "safetensors.torch.save_file(state_dict, 'model.safetensors'), then load that file "
        "in a recipe's build(); or torch.export.save(program, 'model.pt2')",
    )


def require_file(path: Path) -> None:
    """Raise SourceError unless `path` is a file that can be read."""
    if not path.exists():
        raise SourceError("there is no such file", where=str(path))
    if not path.is_file():
        raise SourceError("this is not a regular file", where=str(path))
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise SourceError(f"the file cannot be read: {error.strerror}", where=str(path)) from error


def hash_file(path: Path, digest: hashlib._Hash) -> None:
    """Add the contents of `path` to `digest` in blocks of 1 MiB."""
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
