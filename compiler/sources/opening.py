"""Which opener reads what the user named; each is imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from leptonc.compiler.errors import SourceError
from leptonc.compiler.sources.files import pickle_refused
from leptonc.compiler.sources.source import Source

PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".pt.tar", ".joblib")


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
    return _opener_for(spec)(spec, inputs)


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
