"""Adds up what is observed, sample after sample, in place.

A sample is taken in as a whole or not at all, so the totals are a valid table at any time
between two samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leptonc.passes.graph.fingerprint import GraphFingerprint
from leptonc.passes.ranges.observed import Observed
from leptonc.passes.ranges.table import DATA_MODULUS, Ranges
from leptonc.passes.ranges.tensor_range import Bounds, Channels, add_observed, find_bounds


class NotObservableError(ValueError):
    """A tensor of a sample holds something that no range can be made of.

    Attributes:
        tensor: Which one.
    """

    def __init__(self, tensor: Observed, what: str) -> None:
        self.tensor = tensor
        super().__init__(what)


class RangeTotals:
    """What was observed so far; memory does not grow with the number of samples."""

    def __init__(
        self,
        graph: GraphFingerprint,
        tensors: Sequence[Observed],
        aliases: Mapping[str, str],
        earlier: Ranges | None = None,
    ) -> None:
        """Start with nothing, or with an earlier part of the same run.

        Args:
            graph: Which graph is observed.
            tensors: What is observed of it.
            aliases: Other names of the same elements.
            earlier: A table of the same graph and tensors.
        """
        self._graph = graph
        self._tensors = tuple(tensors)
        self._aliases = dict(aliases)
        self.samples = earlier.samples if earlier else 0
        self._data = earlier.data if earlier else 0
        known = earlier.tensors if earlier else {}
        self._totals = {each.name: known.get(each.name) for each in tensors}

    def add(self, arrays: Mapping[str, np.ndarray[Any, Any]], digest: bytes) -> None:
        """Take in one sample.

        Args:
            arrays: Each observed tensor by name.
            digest: SHA-256 of the sample.

        Raises:
            NotObservableError: A tensor is empty or holds an infinity or a NaN; then nothing of
                the sample was taken in.
        """
        plain = {
            each.name: arrays[each.name].astype(np.float32, copy=False) for each in self._tensors
        }
        # All bounds come before any count, so that a sample that is refused leaves no trace.
        seen = {each.name: self._bounds(each, plain[each.name]) for each in self._tensors}
        for name, found in seen.items():
            self._totals[name] = add_observed(self._totals[name], plain[name], found)
        self._data = (self._data + int.from_bytes(digest, "big")) % DATA_MODULUS
        self.samples += 1

    def _bounds(self, tensor: Observed, array: np.ndarray[Any, Any]) -> Bounds:
        try:
            found = find_bounds(array, tensor.channel_axis)
        except ValueError as error:
            raise NotObservableError(tensor, str(error)) from error
        total = self._totals[tensor.name]
        if total is not None and not _same_channels(total.channels, found.channels):
            raise NotObservableError(tensor, "has another number of channels than before")
        return found

    def ranges(self) -> Ranges:
        """Return the table of all samples so far; it must not outlive the next `add`."""
        tensors = {name: total for name, total in self._totals.items() if total is not None}
        return Ranges(self._graph, self.samples, self._data, tensors, self._aliases)


def _same_channels(first: Channels | None, second: Channels | None) -> bool:
    if first is None or second is None:
        return first is second
    return bool(first.shape == second.shape)
