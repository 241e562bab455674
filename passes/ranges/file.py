"""Calibration tables as files: JSON that is checked before any of it is believed.

The text holds a digest of all the rest, so that a truncated or edited table is found out. A
histogram is stored as its occupied bins only: their numbers as uint16 and their counts as int64,
both little-endian, compressed with zlib, in base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from leptonc.passes.errors import RangesError
from leptonc.passes.graph.fingerprint import GraphFingerprint
from leptonc.passes.ranges.histogram import BINS, distribution
from leptonc.passes.ranges.table import DATA_MODULUS, Ranges
from leptonc.passes.ranges.tensor_range import TensorRange, units
from leptonc.runtime.errors import EnvironmentProblem

FORMAT = 1
_BIN, _COUNT, _CHANNEL = np.dtype("<u2"), np.dtype("<i8"), np.dtype("<f4")
_MOST_CHANNELS = 1 << 24
# Counts up to here leave room to add up many tables.
_MOST_ELEMENTS = 1 << 60
_FIX = "a table cannot be edited or cut: make it again with `leptonc calibrate`"


def write_ranges(path: Path, ranges: Ranges, progress: Mapping[str, Any] | None = None) -> None:
    """Write a table, replacing `path` only when it is complete.

    Args:
        path: The file.
        ranges: The table.
        progress: What a checkpoint adds.

    Raises:
        EnvironmentProblem: The folder cannot be written, or the disk is full.
    """
    table: dict[str, Any] = {
        "format": FORMAT,
        "graph": {
            "interface": dict(ranges.graph.interface),
            "nodes": dict(ranges.graph.nodes),
            "weights": dict(ranges.graph.weights),
        },
        "samples": ranges.samples,
        "data": f"{ranges.data:064x}",
        "tensors": {name: _encoded(seen) for name, seen in ranges.tensors.items()},
        "aliases": dict(ranges.aliases),
    }
    if progress is not None:
        table["progress"] = dict(progress)
    table["digest"] = _digest(table)
    _replace(path, json.dumps(table, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n")


def read_ranges(path: Path) -> Ranges:
    """Read a table.

    Raises:
        RangesError: The file is missing, is a checkpoint, or is not a whole and unchanged table.
    """
    ranges, progress = read_checkpoint(path)
    if progress is not None:
        raise RangesError(
            f"this is the checkpoint of an unfinished calibration, after {ranges.samples} samples",
            where=str(path),
            fix="finish it: leptonc calibrate ... --resume",
        )
    return ranges


def read_checkpoint(path: Path) -> tuple[Ranges, Mapping[str, Any] | None]:
    """Read a table that may be a checkpoint, and what a checkpoint adds to it.

    Raises:
        RangesError: The file is missing, or is not a whole and unchanged table.
    """
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RangesError(
            "there is no such calibration table",
            where=str(path),
            fix="make one: leptonc calibrate recipe.py -o ranges.json",
        ) from error
    except OSError as error:
        raise RangesError(
            f"the calibration table cannot be read: {error.strerror}", where=str(path)
        ) from error
    except (ValueError, RecursionError) as error:
        raise RangesError(
            f"this is not a calibration table: {error}", where=str(path), fix=_FIX
        ) from error
    return _Reader(path).table(table)


def _digest(table: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in table.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise EnvironmentProblem(
            f"the calibration table cannot be written: {error.strerror or error}",
            where=str(path),
            fix="choose a folder that can be written and has room",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _encoded(seen: TensorRange) -> dict[str, Any]:
    bins = np.flatnonzero(seen.counts)
    packed = bins.astype(_BIN).tobytes() + seen.counts[bins].astype(_COUNT).tobytes()
    entry: dict[str, Any] = {
        "samples": seen.samples,
        "minimum": seen.minimum,
        "maximum": seen.maximum,
        # JSON readers keep no whole numbers of this size.
        "sum_minimum": hex(seen.sum_minimum),
        "sum_maximum": hex(seen.sum_maximum),
        "histogram": _packed(packed),
    }
    if seen.channels is not None:
        entry["channels"] = _packed(seen.channels.astype(_CHANNEL).tobytes())
    return entry


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()


class _Reader:
    """Checks the parts of one file, and says which of them is wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fail(self, what: str) -> NoReturn:
        raise RangesError(
            f"the calibration table is damaged: {what}", where=str(self._path), fix=_FIX
        )

    def table(self, table: Any) -> tuple[Ranges, Mapping[str, Any] | None]:
        if not isinstance(table, dict) or "format" not in table:
            raise RangesError(
                "this is not a calibration table",
                where=str(self._path),
                fix="give a file that `leptonc calibrate` wrote",
            )
        if table["format"] != FORMAT:
            raise RangesError(
                f"the calibration table has format {table['format']!r}; this version reads "
                f"format {FORMAT}",
                where=str(self._path),
                fix="make it again with this version: leptonc calibrate",
            )
        try:
            digest = _digest(table)
        except ValueError:
            self.fail("it holds a number that is none")
        if table.get("digest") != digest:
            self.fail("its contents do not match its digest")
        samples = self.count(table.get("samples"), "samples")
        tensors = {
            name: self.tensor(name, entry, samples)
            for name, entry in self.entries(table.get("tensors"), "tensors").items()
        }
        aliases = self.words(table.get("aliases"), "aliases")
        for name, target in aliases.items():
            if target not in tensors:
                self.fail(f"{name!r} stands for {target!r}, which it does not hold")
        graph = self.graph(self.entries(table.get("graph"), "graph"))
        data = self.whole(table.get("data"), "data")
        if not 0 <= data < DATA_MODULUS:
            self.fail("the digest of the data is out of range")
        progress = table.get("progress")
        if progress is not None and not isinstance(progress, dict):
            self.fail("its progress is not an object")
        return Ranges(graph, samples, data, tensors, aliases), progress

    def graph(self, entry: Mapping[str, Any]) -> GraphFingerprint:
        parts = (self.words(entry.get(key), key) for key in ("interface", "nodes", "weights"))
        return GraphFingerprint(*parts)

    def tensor(self, name: str, entry: Any, samples: int) -> TensorRange:
        fields = self.entries(entry, name)
        if self.count(fields.get("samples"), name) != samples:
            self.fail(f"tensor {name!r} was not observed in every sample")
        low = self.number(fields.get("minimum"), name)
        high = self.number(fields.get("maximum"), name)
        sums = [self.whole(fields.get(key), name) for key in ("sum_minimum", "sum_maximum")]
        if not low <= high or not all(
            samples * units(low) <= total <= samples * units(high) for total in sums
        ):
            self.fail(f"the bounds of tensor {name!r} contradict one another")
        counts = self.histogram(name, fields.get("histogram"))
        found = distribution(counts)
        if not (found.low[0] <= low <= found.high[0] and found.low[-1] <= high <= found.high[-1]):
            self.fail(f"the histogram of tensor {name!r} contradicts its bounds")
        channels = None
        if "channels" in fields:
            data = self.unpacked(name, fields["channels"], _MOST_CHANNELS * _CHANNEL.itemsize)
            if not data or len(data) % _CHANNEL.itemsize:
                self.fail(f"the channels of tensor {name!r} are cut")
            channels = np.frombuffer(data, _CHANNEL).astype(np.float32)
            if not np.isfinite(channels).all() or channels.min() < 0:
                self.fail(f"the channels of tensor {name!r} are no magnitudes")
        return TensorRange(samples, low, high, sums[0], sums[1], counts, channels)

    def histogram(self, name: str, text: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        entry = _BIN.itemsize + _COUNT.itemsize
        data = self.unpacked(name, text, BINS * entry)
        size, rest = divmod(len(data), entry)
        if rest or not size:
            self.fail(f"the histogram of tensor {name!r} is cut")
        bins = np.frombuffer(data, _BIN, size).astype(np.int64)
        found = np.frombuffer(data, _COUNT, size, size * _BIN.itemsize)
        # 0x7F80 and 0xFF80 are where infinities and NaN begin.
        if (np.diff(bins) <= 0).any() or (bins & 0x7FFF >= 0x7F80).any():
            self.fail(f"the histogram of tensor {name!r} has bins that cannot be")
        if found.min() < 1 or found.max() > _MOST_ELEMENTS or int(sum(found)) > _MOST_ELEMENTS:
            self.fail(f"the histogram of tensor {name!r} has counts that cannot be")
        counts = np.zeros(BINS, np.int64)
        counts[bins] = found
        return counts

    def unpacked(self, name: str, text: Any, limit: int) -> bytes:
        if not isinstance(text, str):
            self.fail(f"tensor {name!r} lacks its histogram")
        try:
            packed = base64.b64decode(text, validate=True)
            inflate = zlib.decompressobj()
            data = inflate.decompress(packed, limit)
        except (ValueError, binascii.Error, zlib.error):
            self.fail(f"the histogram of tensor {name!r} cannot be unpacked")
        if not inflate.eof or inflate.unused_data:
            self.fail(f"the histogram of tensor {name!r} is too long or cut")
        return data

    def entries(self, value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(f"{name!r} is not an object")
        return value

    def words(self, value: Any, name: str) -> dict[str, str]:
        found = self.entries(value, name)
        if not all(isinstance(text, str) for text in found.values()):
            self.fail(f"{name!r} holds something other than text")
        return found

    def count(self, value: Any, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 53:
            self.fail(f"{name!r} has {value!r} samples")
        return value

    def number(self, value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"tensor {name!r} has {value!r} for a bound")
        number = float(value)
        if not np.isfinite(np.float32(number)) or float(np.float32(number)) != number:
            self.fail(f"tensor {name!r} has {value!r} for a bound, which is no float32")
        return number

    def whole(self, value: Any, name: str) -> int:
        try:
            return int(value, 16) if len(value) <= 256 else self.fail(f"{name!r} is too long")
        except (TypeError, ValueError):
            self.fail(f"{name!r} has {value!r} where a hexadecimal number belongs")
