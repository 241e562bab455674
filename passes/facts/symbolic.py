"""Dimensions by name, where ONNX's inference knows a number or nothing.

Sizes start as the numbers and names of the inputs of the graph: one name is one size, as ONNX's
IR specification has it. They are followed through the operators that copy, split, join, multiply
and broadcast dimensions, and through the arithmetic that exporters do on shapes. A dimension
that cannot be followed gets a name of its own, which equals nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from leptonc.passes.facts.contents import output_content
from leptonc.passes.facts.contrib_stand_ins import stand_in
from leptonc.passes.facts.dims import output_dims
from leptonc.passes.facts.sizes import Size, number, symbol
from leptonc.passes.facts.symbolic_view import Sizes, Symbolic, View, own
from leptonc.passes.graph.constants import constant_ints
from leptonc.passes.graph.operators import has_plain_attributes
from leptonc.passes.graph.structure import Root, graphs, opset_of

# Since this opset Squeeze, Unsqueeze, Split and the reductions take their axes as inputs.
_FIRST_OPSET = 13


def infer_symbolic(
    model: ir.Model, root: Root, dims: Callable[[ir.Value], tuple[int | None, ...] | None]
) -> Symbolic:
    """Follow sizes through a graph and its subgraphs.

    Args:
        model: Left unchanged.
        root: Its main graph, or a function, each of whose calls may bring inputs of other sizes.
        dims: What is known of the dimensions of a value as numbers.
    """
    known = Symbolic()
    for value in () if root.function else root.graph.inputs:
        if value.shape is not None:
            known.sizes[value] = tuple(
                number(size) if isinstance(size, int) else _named(size, own(value, axis))
                for axis, size in enumerate(value.shape)
            )
    opset = opset_of(model, root)
    for graph in graphs(root.graph):
        for node in graph:
            _follow(node, known, dims, opset)
    return known


def _named(size: ir.SymbolicDim, fallback: Size) -> Size:
    text = size.value
    return symbol(text) if isinstance(text, str) and text else fallback


def _follow(
    node: ir.Node,
    known: Symbolic,
    dims: Callable[[ir.Value], tuple[int | None, ...] | None],
    opset: int,
) -> None:
    found: Sizes | None = None
    first = node.outputs[0] if node.outputs else None
    is_split = node.op_type == "Split" and not node.domain
    if opset >= _FIRST_OPSET and first is not None and has_plain_attributes(node):
        view = View(node, known)
        found = output_dims(view)
        content = output_content(view)
        if content is not None:
            known.contents[first] = content
    guise, count = stand_in(node) if node.domain else None, len(node.outputs)
    alike = () if guise is None else tuple(node.outputs[i] for i in guise.outputs if i < count)
    widths = constant_ints(node.inputs[1]) if is_split and len(node.inputs) > 1 else None
    for index, output in enumerate(node.outputs):
        numbers = dims(output)
        sizes = found if output is first or is_split or output in alike else None
        if is_split and found is not None:
            axis = node.attributes.get_int("axis", 0) % len(found)
            width = number(widths[index]) if widths is not None else own(output, axis)
            sizes = (*found[:axis], width, *found[axis + 1 :])
        if numbers is None and sizes is None:
            continue
        known.sizes[output] = _merged(output, numbers, sizes)


def _merged(value: ir.Value, numbers: tuple[int | None, ...] | None, sizes: Sizes | None) -> Sizes:
    """Prefer numbers, then what was followed, then a name of its own."""
    if numbers is None:
        assert sizes is not None
        return sizes
    if sizes is not None and len(sizes) != len(numbers):
        sizes = None
    merged = []
    for axis, size in enumerate(numbers):
        if size is not None:
            merged.append(number(size))
        elif sizes is not None:
            merged.append(sizes[axis])
        else:
            merged.append(own(value, axis))
    return tuple(merged)
