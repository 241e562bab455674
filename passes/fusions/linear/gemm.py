"""Products of matrices become Gemm.

    MatMul(A, B) + C                 ->  Gemm(A, B, C)
    Gemm(A, B) + C                   ->  Gemm(A, B, C)
    Gemm(A, B, C1) + C2              ->  Gemm(A, B, C1 + C2)        C1, C2 constant rows
    MatMul(A^T, B), Gemm(A^T, B, C)  ->  Gemm(A, B, C, transA=1)    and B alike

A is [M, K] and B is [K, N]; C broadcasts to [M, N] and does not widen it. With factors the
sum is alpha * A @ B + beta * C, so C joins a Gemm whose beta is spoken for by C1 only.

Why for operands of rank 2 only: at BERT-base shapes (batch 1 and 8, 128 positions, 2 threads)
ONNX Runtime takes as long for MatMul + Add as for Reshape + Gemm + Reshape, with the weight
transposed or not (differences under 3 % are ties here), and the residual as C gains nothing. So
the form with fewer nodes is the better one: Gemm where no Reshape is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.fusions.linear.read import OPSET, is_row, known_tensor, no_floats, wide_row
from leptonc.passes.rewriting.build import Build, attributes_of
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site, commuted


@dataclass(frozen=True)
class Sum:
    """A product of matrices and what is added to it."""

    product: ir.Node
    addend: ir.Value


def _sum_pattern(site: Site) -> Sum | None:
    for left, right in commuted(site.node):
        product = site.producer(left, "MatMul", "Gemm")
        if product is None or len(product.inputs) < 2 or None in product.inputs[:2]:
            continue
        if right is left:
            continue
        if all(site.facts.rank(value) == 2 for value in product.inputs[:2]):
            return Sum(product, right)
    return None


def _sum_check(site: Site, match: Sum) -> str | None:
    product = match.product
    columns = _columns(site, product)
    reason = no_floats(site.at(product))
    if reason is not None:
        return reason
    if not _broadcasts(site, match.addend, _rows(site, product), columns):
        return f"{match.addend.name!r} is not known to broadcast to the product"
    reason = site.read_elsewhere(product.outputs[0], (site.node,))
    if reason is not None:
        return reason
    bias = _bias(product)
    if bias is None:
        return None
    if product.attributes.get_float("beta", 1.0) != 1.0:
        return "the Gemm has a bias with a factor"
    if columns is None or not all(is_row(site, v, columns, 2) for v in (bias, match.addend)):
        return f"the Gemm has a bias already, {bias.name!r}"
    return None


def _sum_rewrite(site: Site, match: Sum, build: Build) -> Rewritten:
    product, addend = match.product, match.addend
    output = site.node.outputs[0]
    bias = _bias(product)
    attributes = attributes_of(product)
    if bias is None:
        attributes.pop("beta", None)
    else:
        addend = _total(build, bias, addend, _columns(site, product) or 1)
    return {output: build.op("Gemm", [*product.inputs[:2], addend], attributes, like=output)}


def _total(build: Build, first: ir.Value, second: ir.Value, width: int) -> ir.Value:
    """Make the sum of two constant rows."""
    tensors = known_tensor(first), known_tensor(second)
    return build.weight(
        tensors,
        lambda a, b: wide_row(a, width) + wide_row(b, width),
        dtype=tensors[0].dtype,
        shape=(width,),
    )


def _bias(product: ir.Node) -> ir.Value | None:
    return product.inputs[2] if len(product.inputs) > 2 else None


def _rows(site: Site, product: ir.Node) -> int | None:
    dims = site.facts.dims(product.inputs[0]) or (None, None)
    return dims[1] if product.attributes.get_int("transA", 0) else dims[0]


def _columns(site: Site, product: ir.Node) -> int | None:
    dims = site.facts.dims(product.inputs[1]) or (None, None)
    return dims[0] if product.attributes.get_int("transB", 0) else dims[1]


def _broadcasts(site: Site, addend: ir.Value, rows: int | None, columns: int | None) -> bool:
    """Whether `addend` broadcasts to [rows, columns] without making more of them."""
    dims = site.facts.dims(addend)
    if dims is None or len(dims) > 2:
        return False
    asked = (rows, columns)[2 - len(dims) :]
    return all(
        size == 1 or (size is not None and size == of) for size, of in zip(dims, asked, strict=True)
    )


def _turned_pattern(site: Site) -> dict[int, ir.Node] | None:
    """Return the Transpose of each operand of a product that has one."""
    node = site.node
    if len(node.inputs) < 2 or any(site.facts.rank(value) != 2 for value in node.inputs[:2]):
        return None
    found: dict[int, ir.Node] = {}
    for index in range(2):
        turn = site.producer(node.inputs[index], "Transpose")
        if turn is not None and site.at(turn).attribute_ints("perm") in (None, (1, 0)):
            found[index] = turn
    return found or None


def _turned_check(site: Site, turns: dict[int, ir.Node]) -> str | None:
    reason = no_floats(site)
    for turn in turns.values():
        if turn.inputs[0] is None:
            return "the Transpose has no input"
        reason = reason or site.read_elsewhere(turn.outputs[0], (site.node,))
    return reason


def _turned_rewrite(site: Site, turns: dict[int, ir.Node], build: Build) -> Rewritten:
    node = site.node
    inputs = list(node.inputs)
    attributes = attributes_of(node) if node.op_type == "Gemm" else {}
    for index, turn in turns.items():
        name = ("transA", "transB")[index]
        inputs[index] = turn.inputs[0]
        attributes[name] = 0 if attributes.get(name, 0) else 1
    output = node.outputs[0]
    return {output: build.op("Gemm", inputs, attributes, like=output)}


RULES = (
    Rule(
        "transpose-gemm",
        ("MatMul", "Gemm"),
        _turned_pattern,
        _turned_check,
        _turned_rewrite,
        opset=OPSET,
    ),
    Rule("matmul-add-gemm", ("Add",), _sum_pattern, _sum_check, _sum_rewrite, opset=OPSET),
)
