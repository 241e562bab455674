"""Cuts batches into samples, checks each, and keeps account of what was seen.

A sample is the smallest call of the model: one row of a batch, where rows do not touch one
another. So the size of a batch leaves no trace in what is observed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leptonc.compiler.calibration.data import Batch, Batches, Column, StoredArray
from leptonc.compiler.errors import CalibrationError
from leptonc.compiler.sources.dimensions import example_sizes, resize_inputs
from leptonc.compiler.sources.source import Source
from leptonc.runtime.arrays import Arrays
from leptonc.runtime.artifact.signature import Dim, Signature, TensorSpec
from leptonc.runtime.errors import EngineError, InputError
from leptonc.runtime.inputs import check_inputs

Run = Callable[[Mapping[str, np.ndarray]], Arrays]

# How far the outputs of one row may be from those of the same row among others: rounding alone.
_SAME_ROWS = 1e-3


@dataclass(frozen=True)
class Sample:
    """One call of the model.

    Attributes:
        number: Its place in the data, from 0.
        where: The batch that it came from.
        inputs: Checked arrays, one per input.
        digest: SHA-256 of the inputs.
        share: Which part of the data there is up to and with this sample; None when unknown.
    """

    number: int
    where: str
    inputs: Arrays
    digest: bytes
    share: float | None = None

    def __str__(self) -> str:
        return f"sample {self.number} ({self.where})"


@dataclass(frozen=True)
class Cut:
    """How batches are cut.

    Attributes:
        signature: What the model takes.
        rows: How many rows of each batched input make a sample. An input that is not named
            goes whole into each sample of its batch.
    """

    signature: Signature
    rows: Mapping[str, int]

    def samples(self, batches: Batches, *, limit: int | None = None) -> Iterator[Sample]:
        """Yield the samples of `batches`, at most `limit`.

        Raises:
            CalibrationError: A name, type, shape or value that cannot be right; it names the
                input and the sample.
        """
        number = 0
        for index, batch in enumerate(batches.items):
            for where, inputs, part in self._cut(batch, number):
                sample = _checked(self.signature, inputs, number, where)
                share = (index + part) / batches.length if batches.length else None
                if limit is not None:
                    share = max(share or 0.0, (number + 1) / limit)
                yield replace(sample, share=share)
                number += 1
                if number == limit:
                    return

    def _cut(self, batch: Batch, number: int) -> Iterator[tuple[str, Mapping[str, object], float]]:
        """Yield each sample of a batch: its place, its inputs, and the part of the batch so far."""
        specs = {spec.name: spec for spec in self.signature.inputs}
        if batch.columns.keys() != specs.keys():
            _checked(self.signature, batch.columns, number, batch.where)
        count, pieces = self._pieces(batch, number, specs)
        whole = {
            name: _read(column, column.shape)
            for name, column in batch.columns.items()
            if name not in pieces
        }
        for index in range(count):
            where = batch.where if count == 1 else f"{batch.where}, row {index}"
            taken = {
                name: _piece(batch.columns[name], index, shape) for name, shape in pieces.items()
            }
            inputs = {name: taken[name] if name in taken else whole[name] for name in specs}
            yield where, inputs, (index + 1) / count

    def _pieces(
        self, batch: Batch, number: int, specs: Mapping[str, TensorSpec]
    ) -> tuple[int, dict[str, tuple[int, ...]]]:
        """Return how many samples a batch has, and the shape of each column's part in one."""
        ranks = {
            name: len(column.shape) - len(specs[name].shape)
            for name, column in batch.columns.items()
        }
        pieces: dict[str, tuple[int, ...]] = {}
        counts: dict[str, int] = {}
        for name, column in batch.columns.items():
            if ranks and all(extra == 1 for extra in ranks.values()):
                counts[name], pieces[name] = column.shape[0], column.shape[1:]
            elif name in self.rows and ranks[name] == 0:
                rows = self.rows[name]
                counts[name], rest = divmod(column.shape[0], rows)
                if rest:
                    raise CalibrationError(
                        f"the input {name!r} has {column.shape[0]} rows, which is not a multiple "
                        f"of {rows}, the smallest batch that the model takes",
                        where=f"sample {number} ({batch.where})",
                        fix="leave out the rest, or fill up the batch",
                    )
                pieces[name] = (rows, *column.shape[1:])
        first = next(iter(counts), None)
        for name, count in counts.items():
            if first is not None and count != counts[first]:
                raise CalibrationError(
                    f"{first!r} has {counts[first]} samples, but {name!r} has {count}",
                    where=f"sample {number} ({batch.where})",
                    fix="give every input the same number of rows",
                )
        if first is None:
            return 1, {}
        if counts[first] == 0:
            raise CalibrationError(
                f"the input {first!r} is empty",
                where=f"sample {number} ({batch.where})",
                fix="leave empty batches out",
            )
        return counts[first], pieces


def _read(column: Column, shape: tuple[int, ...]) -> np.ndarray:
    return column.read(shape) if isinstance(column, StoredArray) else column


def _piece(column: Column, index: int, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(column, StoredArray):
        return column.read(shape)
    if column.ndim == len(shape):
        return column[index * shape[0] : (index + 1) * shape[0]]
    piece: np.ndarray = column[index]
    return np.asarray(piece)


def _checked(signature: Signature, given: Mapping[str, object], number: int, where: str) -> Sample:
    place = f"sample {number} ({where})"
    try:
        inputs, _ = check_inputs(signature, given)
    except InputError as error:
        what = f"{error.where}; " if error.where else ""
        raise CalibrationError(error.what, where=f"{what}{place}", fix=error.fix) from error
    for name, array in inputs.items():
        if not array.size:
            raise CalibrationError(
                f"the input {name!r} is empty, with shape {list(array.shape)}",
                where=place,
                fix="leave empty samples out",
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "an infinity"
            raise CalibrationError(
                f"the input {name!r} holds {kind}", where=place, fix="repair or leave it out"
            )
    return Sample(number, where, dict(inputs), _digest(inputs))


def _digest(inputs: Mapping[str, np.ndarray]) -> bytes:
    sink = hashlib.sha256()
    for name, array in inputs.items():
        sink.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        if array.dtype.kind == "O":
            for text in array.reshape(-1).tolist():
                sink.update(len(text.encode()).to_bytes(8, "little") + text.encode())
        else:
            sink.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sink.digest()


def find_cut(source: Source, signature: Signature, run: Run) -> Cut:
    """Find out whether the first axis of the inputs is a batch, by trying.

    Case 1: it is dynamic and has one name: two samples together must give what each gives
        alone, row by row; otherwise a call is one sample, as in a sequence without a batch.
    Case 2: it is static: a sample has as many rows as the model takes.

    Args:
        source: Its example inputs are tried.
        signature: What the model takes.
        run: Computes the outputs of the model.
    """
    first = {spec.name: spec.shape[0] for spec in signature.inputs if spec.shape}
    dims = {size for size in first.values() if isinstance(size, Dim)}
    if not dims:
        sizes = {size for size in first.values() if isinstance(size, int)}
        return Cut(
            signature,
            {name: max(1, size) for name, size in first.items() if isinstance(size, int)}
            if len(sizes) == 1
            else {},
        )
    if len(dims) > 1:
        return Cut(signature, {})
    (dim,) = dims
    rows = max(1, dim.min)
    batched = {name: rows for name, size in first.items() if size == dim}
    within = dim.admits(2 * rows)
    return Cut(signature, batched if within and _is_batch(source, dim.name, batched, run) else {})


def _is_batch(source: Source, name: str, batched: Mapping[str, int], run: Run) -> bool:
    sizes = example_sizes(source.inputs, source.axes)
    if name not in sizes:
        return False
    rows = next(iter(batched.values()))
    together = resize_inputs(source.inputs, source.axes, {**sizes, name: 2 * rows})
    try:
        outputs = run(together)
        alone = [
            run(
                {
                    each: array[half * rows : (half + 1) * rows] if each in batched else array
                    for each, array in together.items()
                }
            )
            for half in (0, 1)
        ]
    except EngineError:
        return False
    return all(_same(array, [half[each] for half in alone]) for each, array in outputs.items())


def _same(together: Any, alone: list[Any]) -> bool:
    if not isinstance(together, np.ndarray) or any(part.ndim != together.ndim for part in alone):
        return False
    if not together.ndim or together.shape[0] != sum(part.shape[0] for part in alone):
        return False
    parts = np.concatenate(alone)
    if together.dtype.kind != "f":
        return bool(np.array_equal(parts, together))
    bound = _SAME_ROWS * float(np.abs(together).max(initial=0.0))
    return bool(np.allclose(parts, together, rtol=0.0, atol=bound, equal_nan=True))
