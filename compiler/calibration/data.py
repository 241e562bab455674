"""Where calibration data comes from: a recipe, .npz files, or an iterable of the user's.

Each of them is a sequence of batches, and is never held as a whole: .npz files are read row by
row. Random data does not exist here: without data there are no ranges.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from leptonc.compiler.errors import CalibrationError
from leptonc.compiler.sources.source import Source, UserData
from leptonc.compiler.sources.torch_reference import as_array
from leptonc.compiler.sources.user_modules import open_attribute

_HOW = (
    "give data with --data (an .npz file, a folder of them, or module:iterable), or add "
    "calibration_data() to the recipe"
)


@dataclass(frozen=True)
class StoredArray:
    """An array of an .npz file that is read in pieces, from its start.

    Attributes:
        stream: Stands at its first element.
        shape: Sizes.
        dtype: Element type.
    """

    stream: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the next elements as an array of the given shape.

        Raises:
            ValueError: The file ends before them.
        """
        size = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        data = self.stream.read(size)
        if len(data) != size:
            raise ValueError("it ends in the middle of an array")
        return np.frombuffer(data, self.dtype).reshape(shape)


# Several samples under one name: all there, or still in a file.
Column = np.ndarray | StoredArray


@dataclass(frozen=True)
class Batch:
    """What a source of data gives at a time.

    Attributes:
        where: What to call it in messages.
        columns: Arrays by input name, as they were given.
    """

    where: str
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class Batches:
    """Calibration data, to be gone through once.

    Attributes:
        name: What to call it in messages.
        items: The batches.
        length: How many, or None when that is not known.
    """

    name: str
    items: Iterator[Batch]
    length: int | None


def open_batches(data: str | None, source: Source) -> Batches:
    """Open the data that the user named, or that of the recipe.

    Args:
        data: An .npz file, a folder of them, `module:attribute`, `file.py:attribute`, or None
            for the recipe's `calibration_data()`.
        source: What is calibrated.

    Raises:
        CalibrationError: There is no data, or it cannot be read.
        RecipeError: The user's own code failed.
    """
    if data is None:
        if source.calibration_data is None:
            raise CalibrationError(
                "no data, no INT8: there is nothing to calibrate with",
                where=source.name,
                fix=_HOW,
            )
        return _from_user(source.calibration_data())
    path = Path(data)
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files:
            raise CalibrationError(
                "the folder holds no .npz files", where=data, fix="write some with numpy.savez"
            )
        return Batches(data, (batch for file in files for batch in _from_file(file)), len(files))
    if ":" in data and not path.exists():
        return _from_user(open_attribute(data))
    require_data(data)
    return Batches(data, _from_file(path), 1)


def require_data(data: str | None) -> None:
    """Refuse a file that does not exist, before anything else takes its time.

    Raises:
        CalibrationError: `data` can only be a file, and there is none.
    """
    if data is not None and ":" not in data and not Path(data).exists():
        raise CalibrationError("there is no such file with calibration data", where=data, fix=_HOW)


def _from_user(data: UserData) -> Batches:
    return Batches(data.name, _checked_items(data), data.length)


def _checked_items(data: UserData) -> Iterator[Batch]:
    for number, item in enumerate(data.items):
        where = f"item {number} of {data.name}"
        if not isinstance(item, Mapping):
            raise CalibrationError(
                f"this is a {type(item).__name__}, not a mapping of input names to arrays",
                where=where,
                fix="yield one {input name: array} for each batch",
            )
        yield Batch(where, {str(key): _plain(key, value, where) for key, value in item.items()})


def _plain(name: object, value: object, where: str) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return as_array(str(name), value)
    if isinstance(value, np.ndarray):
        return value
    raise CalibrationError(
        f"the input {name!r} is a {type(value).__name__}, not an array or a tensor",
        where=where,
        fix="wrap it: numpy.asarray(value)",
    )


def _from_file(path: Path) -> Iterator[Batch]:
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(path))
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            columns = {
                name.removesuffix(".npy"): _column(stack.enter_context(archive.open(name)))
                for name in members
            }
            if not columns:
                raise CalibrationError("the .npz file holds no arrays", where=str(path), fix=_HOW)
            yield Batch(str(path), columns)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CalibrationError(
            f"not a readable .npz file: {error}",
            where=str(path),
            fix="write it with numpy.savez(path, name=array, ...), without object arrays",
        ) from error


def _column(stream: IO[bytes]) -> Column:
    version = np.lib.format.read_magic(stream)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, by_columns, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    stored = StoredArray(stream, shape, dtype)
    if not by_columns:
        return stored
    # Rows of such an array lie scattered over all of it.
    return stored.read(shape[::-1]).transpose()
