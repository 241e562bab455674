"""Sizes of dimensions that are known by name: whole-number polynomials in symbols.

`batch`, `4*heads`, `past + sequence` and `batch*sequence` are sizes. Two sizes that are equal as
polynomials are equal whenever the model runs; sizes that are not may still be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Monomial = tuple[str, ...]


@dataclass(frozen=True)
class Size:
    """A sum of products of symbols.

    Attributes:
        terms: Each product of symbols (sorted, repeated for powers) with its factor, which is
            not 0; sorted by product. The empty product is the constant part.
    """

    terms: tuple[tuple[Monomial, int], ...]

    @property
    def number(self) -> int | None:
        """The size, when it is the same in every run."""
        if not self.terms:
            return 0
        if len(self.terms) == 1 and not self.terms[0][0]:
            return self.terms[0][1]
        return None

    def plus(self, other: Size) -> Size:
        """Return the sum."""
        total = dict(self.terms)
        for product, factor in other.terms:
            total[product] = total.get(product, 0) + factor
        return _size(total)

    def times(self, other: Size) -> Size:
        """Return the product."""
        total: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in other.terms:
                product = tuple(sorted(left + right))
                total[product] = total.get(product, 0) + a * b
        return _size(total)

    def over(self, other: Size) -> Size | None:
        """Return the quotient by a single product, when there is no remainder.

        It is the quotient wherever `other` is not 0.
        """
        if len(other.terms) != 1:
            return None
        divisor, by = other.terms[0]
        total: dict[Monomial, int] = {}
        for product, factor in self.terms:
            rest = list(product)
            for symbol in divisor:
                if symbol not in rest:
                    return None
                rest.remove(symbol)
            if factor % by:
                return None
            total[tuple(rest)] = factor // by
        return _size(total)


def _size(total: Mapping[Monomial, int]) -> Size:
    return Size(tuple(sorted((product, factor) for product, factor in total.items() if factor)))


def number(value: int) -> Size:
    """Return a size that is the same in every run."""
    return Size((((), value),) if value else ())


def symbol(name: str) -> Size:
    """Return a size that is known by its name only."""
    return Size((((name,), 1),))


ONE = number(1)


def at_most(size: Size, limit: int) -> Size:
    """Return the smaller of a size and a number, as a name of its own."""
    return symbol(f"{_at_most(size)}{limit}")


def is_at_most(size: Size, other: Size) -> bool:
    """Whether `size` is `other` cut at some number."""
    if len(size.terms) != 1 or size.terms[0][1] != 1 or len(size.terms[0][0]) != 1:
        return False
    return size.terms[0][0][0].startswith(_at_most(other))


def _at_most(size: Size) -> str:
    # No model can name a dimension like this.
    return f"\0{size.terms} at most "


def product(sizes: tuple[Size, ...]) -> Size:
    """Return the product of all."""
    total = ONE
    for size in sizes:
        total = total.times(size)
    return total
