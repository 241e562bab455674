"""An Einsum that is one product of matrices becomes that product.

    Einsum<"bhid,bhjd->bhij">(a, b)  =  MatMul(a, Transpose(b))

One letter is summed over, one is of the first operand alone and one of the second; the others are
of both and of the result. Operands and result are transposed where their letters stand in another
order. Sums are taken in the order of the kernel of MatMul, so the result may change by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.dims_of_einsum import read_equation
from leptonc.passes.fusions.linear.read import no_floats
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site


@dataclass(frozen=True)
class _Product:
    """A product of matrices.

    Attributes:
        operands: The left and the right one, with their letters.
        result: The letters of the result.
        batch: Those of both operands and the result, as in the result.
        rows: That of the left one alone.
        columns: That of the right one alone.
        inner: That which is summed over.
    """

    operands: tuple[tuple[ir.Value, str], tuple[ir.Value, str]]
    result: str
    batch: str
    rows: str
    columns: str
    inner: str


def _pattern(site: Site) -> _Product | None:
    equation = read_equation(site.node)
    values = [value for value in site.node.inputs if value is not None]
    if equation is None or len(equation.operands) != 2 or len(values) != 2:
        return None
    operands, result = dict(zip(equation.operands, values, strict=False)), equation.result
    first, second = equation.operands
    alone = [letter for letter in result if (letter in first) != (letter in second)]
    inner = set(first) & set(second) - set(result)
    summed = (set(first) | set(second)) - set(result)
    if len(alone) != 2 or len(inner) != 1 or inner != summed:
        return None
    if (alone[0] in first) == (alone[1] in first):
        return None
    if alone[0] in second:
        first, second = second, first
    batch = "".join(letter for letter in result if letter not in alone)
    return _Product(
        operands=((operands[first], first), (operands[second], second)),
        result=result,
        batch=batch,
        rows=alone[0],
        columns=alone[1],
        inner=inner.pop(),
    )


def _check(site: Site, match: _Product) -> str | None:
    reason = no_floats(site)
    if reason is not None:
        return reason
    sizes = []
    for value, letters in match.operands:
        dims = site.facts.symbolic(value)
        sizes.append(None if dims is None else dims[letters.index(match.inner)])
    if sizes[0] is None or sizes[0] != sizes[1]:
        return f"the sizes of {match.inner!r} are not known to be the same"
    return None


def _rewrite(site: Site, match: _Product, build: Build) -> Rewritten:
    orders = (match.batch + match.rows + match.inner, match.batch + match.inner + match.columns)
    left, right = (
        _turned(build, value, letters, order)
        for (value, letters), order in zip(match.operands, orders, strict=True)
    )
    old, order = site.node.outputs[0], match.batch + match.rows + match.columns
    product = build.op("MatMul", [left, right], like=old if order == match.result else None)
    return {old: _turned(build, product, order, match.result, like=old)}


def _turned(
    build: Build, value: ir.Value, letters: str, order: str, like: ir.Value | None = None
) -> ir.Value:
    if letters == order:
        return value
    perm = [letters.index(letter) for letter in order]
    return build.op("Transpose", [value], {"perm": perm}, like=like)


RULES: tuple[Rule[_Product], ...] = (
    Rule("einsum-product", ("Einsum",), _pattern, _check, _rewrite),
)
