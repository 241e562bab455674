"""`python -m leptonc.runtime model.lepton inputs.npz outputs.npz [inputs outputs ...]`.

Runs an artifact with nothing but NumPy and the engine, on one or several sets of inputs; the
compiler proves finished artifacts with it, in a process of its own.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from leptonc.runtime.errors import EnvironmentProblem, InputError, LeptonError
from leptonc.runtime.inputs import Arrays
from leptonc.runtime.session import load

_USAGE = "usage: python -m leptonc.runtime model.lepton inputs.npz outputs.npz [...]\n"


def main(arguments: Sequence[str]) -> int:
    """Run and return the exit status."""
    if len(arguments) < 3 or len(arguments) % 2 == 0:
        sys.stderr.write(_USAGE)
        return 2
    model, *files = arguments
    try:
        with load(model) as session:
            for source, target in zip(files[::2], files[1::2], strict=True):
                _write(Path(target), session.run(_read(Path(source))))
                if len(files) > 2:
                    # The first set shows what a service answers first, the others what it
                    # answers from then on.
                    session.warm_up()
    except LeptonError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _read(path: Path) -> Arrays:
    arrays: Arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    array = np.lib.format.read_array(member, allow_pickle=False)
                arrays[name.removesuffix(".npy")] = array
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"the inputs cannot be read: {error}",
            where=str(path),
            fix="write them with numpy.savez(path, name=array, ...)",
        ) from error
    return arrays


def _write(path: Path, arrays: Arrays) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    plain = array.astype(str) if array.dtype.kind == "O" else array
                    np.lib.format.write_array(member, plain, allow_pickle=False)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise EnvironmentProblem(
            f"the outputs cannot be written: {error.strerror or error}", where=str(path)
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
