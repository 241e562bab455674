"""Calibration tables: what was observed of each tensor, on which graph, over which samples.

A table is bound to the graph that it was made with: the one after the `canonical` stage of
`leptonc.passes.schedule`. Tables made on parts of the data add up to the table of the whole,
exactly (see `tensor_range`), and one table answers for every method of `methods`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from leptonc.passes.errors import RangesError
from leptonc.passes.graph.fingerprint import GraphFingerprint, difference
from leptonc.passes.ranges.methods import DEFAULT_PERCENTILE, METHODS, Request
from leptonc.passes.ranges.tensor_range import TensorRange

# Digests of samples add up modulo this.
DATA_MODULUS = 1 << 256


@dataclass(frozen=True, eq=False)
class Ranges:
    """A calibration table.

    Attributes:
        graph: Which graph it was made with.
        samples: How many samples were observed.
        data: The sum of the SHA-256 of the samples, modulo 2^256, so that their order plays
            no part.
        tensors: What was observed, by the name of the tensor.
        aliases: Tensors that hold the same elements as an observed one in another arrangement,
            with the name of that one.
    """

    graph: GraphFingerprint
    samples: int
    data: int
    tensors: Mapping[str, TensorRange]
    aliases: Mapping[str, str]

    def __contains__(self, tensor: object) -> bool:
        """Whether a range is known for a tensor of that name."""
        return tensor in self.tensors or tensor in self.aliases

    def observed(self, tensor: str) -> TensorRange:
        """Return what was observed of `tensor`, also under the name of what it rearranges.

        Raises:
            RangesError: Nothing was.
        """
        found = self.tensors.get(self.aliases.get(tensor, tensor))
        if found is None:
            raise RangesError(
                f"the calibration table knows nothing of tensor {tensor!r}",
                fix="calibrate again with this version of leptonc and this model: "
                "leptonc calibrate",
            )
        return found

    def range(
        self,
        tensor: str,
        method: str = "minmax",
        *,
        percent: float = DEFAULT_PERCENTILE,
        symmetric: bool = False,
        levels: int = 256,
    ) -> tuple[float, float]:
        """Return the range `(low, high)` that the quantised form of `tensor` covers.

        Args:
            tensor: Its name in the canonical graph.
            method: A key of `METHODS`.
            percent: For "percentile": above 50, at most 100.
            symmetric: Give `low == -high`, for targets whose zero point is 0.
            levels: How many values the quantised form has: 2 to the number of bits.

        Returns:
            Two numbers with `low <= 0 <= high`; both are 0 for a tensor of zeros.

        Raises:
            RangesError: Nothing is known of the tensor, or there is no such method or percentage.
        """
        if method not in METHODS:
            raise RangesError(
                f"there is no range method {method!r}", fix=f"use one of: {', '.join(METHODS)}"
            )
        if not 50.0 < percent <= 100.0:
            raise RangesError(
                f"a percentile of {percent:g} leaves nothing to quantise",
                fix="use a number above 50 and up to 100, such as 99.99",
            )
        return METHODS[method](self.observed(tensor), Request(percent, symmetric, levels))

    def plus(self, other: Ranges) -> Ranges:
        """Return the table of both parts of the data.

        Raises:
            RangesError: They were made with different graphs or of the same samples, or
                observed different tensors.
        """
        self.require_graph(other.graph)
        self.require_tensors(other.tensors)
        if (self.samples, self.data) == (other.samples, other.data):
            raise RangesError(
                f"both tables were made of the same {self.samples} samples, which would count "
                "twice",
                fix="merge tables of different parts of the data, each once",
            )
        tensors: dict[str, TensorRange] = {}
        for name, seen in self.tensors.items():
            try:
                tensors[name] = seen.plus(other.tensors[name])
            except ValueError as error:
                raise RangesError(f"tensor {name!r} {error} in one of the tables") from error
        data = (self.data + other.data) % DATA_MODULUS
        return Ranges(self.graph, self.samples + other.samples, data, tensors, self.aliases)

    def require_tensors(self, names: Iterable[str]) -> None:
        """Refuse to go on with other tensors than those of the table.

        Raises:
            RangesError: With a tensor that only one side has.
        """
        odd = sorted(self.tensors.keys() ^ set(names))
        if odd:
            raise RangesError(
                f"not the same tensors were observed: {odd[0]!r} is in one table only",
                fix="calibrate all parts with the same version of leptonc",
            )

    def require_graph(self, graph: GraphFingerprint) -> None:
        """Refuse another graph than the one that the table was made with.

        Raises:
            RangesError: With the first difference.
        """
        found = difference(self.graph, graph)
        if found is not None:
            raise RangesError(
                "the calibration table was made with another graph",
                where=f"{found} (there: the table's graph; here: this one)",
                fix="calibrate again with this model and the same options: leptonc calibrate",
            )
