"""Named arrays in .npz files: how inputs and outputs travel between processes and to users.

`numpy.savez` takes the names as keywords, so an input called `file` breaks it, and
`numpy.load` reads members lazily with errors of many types. These functions take any name
and raise one error. Importing the runtime does not import this module: it needs zipfile.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from leptonc.runtime.errors import EnvironmentProblem, InputError

Arrays = dict[str, np.ndarray]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` as an uncompressed .npz file, replacing `path` only when complete.

    Raises:
        EnvironmentProblem: The folder cannot be written or the disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    # Text travels as NumPy's own strings: objects would be pickled.
                    plain = array.astype(str) if array.dtype.kind == "O" else array
                    np.lib.format.write_array(member, plain, allow_pickle=False)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise EnvironmentProblem(
            f"the arrays cannot be written: {error.strerror or error}",
            where=str(path),
            fix="choose a folder that can be written and has room",
        ) from error


def load_arrays(path: Path, *, may_be_empty: bool = False) -> Arrays:
    """Read every array of an .npz file; pickled objects are refused.

    Args:
        path: The file.
        may_be_empty: Accept a file without arrays, for a model without inputs.

    Raises:
        InputError: The file is missing, is not an .npz file, or holds something other
            than plain arrays.
    """
    arrays: Arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if not member.endswith(".npy"):
                    continue
                with archive.open(member) as stream:
                    array = np.lib.format.read_array(stream, allow_pickle=False)
                arrays[member.removesuffix(".npy")] = array
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path)) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"not a readable .npz file: {error}",
            where=str(path),
            fix="write it with numpy.savez(path, name=array, ...), without object arrays",
        ) from error
    if not arrays and not may_be_empty:
        raise InputError("the .npz file holds no arrays", where=str(path))
    return arrays


def load_named_arrays(path: Path, names: Collection[str]) -> Arrays:
    """Read the arrays of an .npz file that must hold exactly `names`, in their order.

    Raises:
        InputError: As `load_arrays`, and when a name is missing or is not one of `names`.
    """
    arrays = load_arrays(path)
    if arrays.keys() != set(names):
        raise InputError(
            f"the file holds {', '.join(arrays)}, but the model takes {', '.join(names) or 'nothing'}",
            where=str(path),
            fix="write one array for each input of the model, under its name",
        )
    return {name: arrays[name] for name in names}
