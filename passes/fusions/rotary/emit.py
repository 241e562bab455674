"""Builds the rotary operators and their tables.

Tables are computed once for all layers: a node that computes the same from the same is read
instead of made again.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from leptonc.passes.facts.sizes import ONE, Size
from leptonc.passes.fusions.rotary.layout import Heads
from leptonc.passes.fusions.rotary.tables import Sizes, Table, cut_columns
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.reuse import Attributes, Operand, ints, once
from leptonc.passes.rewriting.site import Site
from leptonc.passes.targets import GENERIC, ORT_CPU, ORT_CUDA

MICROSOFT = "com.microsoft"

_PLAIN = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})

# The element types that the operator of a target takes.
TYPES = {
    GENERIC: _PLAIN | {ir.DataType.BFLOAT16},
    ORT_CPU: _PLAIN,
    ORT_CUDA: _PLAIN | {ir.DataType.BFLOAT16},
}


def embed(
    site: Site,
    build: Build,
    x: ir.Value,
    tables: Sequence[Table],
    heads: Heads,
    *,
    pairs: bool,
    like: ir.Value,
) -> ir.Value:
    """Build the rotation of `x`, in the layout of `x`."""
    attributes: Attributes = {"interleaved": 1} if pairs else {}
    width, count = heads.dims[-1].number, heads.count
    own = heads.shared and site.target != GENERIC
    cos, sin = (_table(site, build, x, table, heads, own=own) for table in tables)
    if heads.first:
        return rotate(build, x, (cos, sin), attributes, like=like, own=own)
    assert count is not None
    assert width is not None
    attributes = {**attributes, "num_heads": count}
    if heads.head is None:
        return rotate(build, x, (cos, sin), attributes, like=like, own=own)
    rows = build.op("Reshape", [x, ints(build, 0, 0, count * width)])
    turned = rotate(build, rows, (cos, sin), attributes, like=None, own=own)
    return build.op("Reshape", [turned, ints(build, 0, 0, count, width)], like=like)


def rotate(
    build: Build,
    x: ir.Value,
    tables: tuple[ir.Value, ir.Value],
    attributes: Attributes,
    *,
    like: ir.Value | None,
    own: bool,
) -> ir.Value:
    """Build one operator: ONNX Runtime's own, or the standard one."""
    if not own:
        return build.op("RotaryEmbedding", [x, *tables], attributes, like=like)
    inputs = [x, ints(build, 0), *tables]
    return build.op("RotaryEmbedding", inputs, attributes, domain=MICROSOFT, like=like)


def _table(
    site: Site, build: Build, x: ir.Value, table: Table, heads: Heads, *, own: bool
) -> ir.Value:
    """Build a table `[S, R/2]` for ONNX Runtime's own operator, `[B, S, R/2]` for the standard."""
    value = _half(site, build, table)
    batch = ONE if heads.shared else heads.dims[0]
    positions = heads.dims[heads.sequence]
    wanted = (positions,) if own else (batch, positions)
    value = _relabelled(site, build, value, table.dims[:-1], wanted)
    if own or batch == heads.dims[0]:
        return value
    return once(site, build, "Expand", [value, _batches(site, build, x, heads.dims[0])])


def _half(site: Site, build: Build, table: Table) -> ir.Value:
    value, cut = table.base, table.cut
    if cut is not None:
        tensor = site.tensor(value)
        assert tensor is not None
        shape = [int(size) for size in tensor.shape.numpy()]
        value = build.weight(
            [tensor],
            lambda array: cut_columns(array, cut),
            dtype=tensor.dtype,
            shape=[*shape[:-1], shape[-1] // 2],
            stem=value.name or "",
        )
    for node, place in table.steps:
        inputs = [*node.inputs[:place], value, *node.inputs[place + 1 :]]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        value = once(site, build, node.op_type, inputs, attributes, place=place)
    return value


def _relabelled(site: Site, build: Build, value: ir.Value, lead: Sizes, wanted: Sizes) -> ir.Value:
    """Move the leading axes of size 1."""
    if lead == wanted:
        return value
    gone = tuple(axis for axis, size in enumerate(lead) if size == ONE)
    new = tuple(axis for axis, size in enumerate(wanted) if size == ONE)
    if gone:
        value = once(site, build, "Squeeze", [value, gone])
    return once(site, build, "Unsqueeze", [value, new]) if new else value


def _batches(site: Site, build: Build, x: ir.Value, batch: Size) -> Operand:
    """Return the shape `[B, 1, 1]`."""
    if batch.number is not None:
        return batch.number, 1, 1
    graph = site.node.graph
    inputs = graph.inputs if isinstance(graph, ir.Graph) else ()
    for value in (*inputs, x):
        dims = site.facts.symbolic(value) or ()
        if batch in dims:
            axis = dims.index(batch)
            size = once(site, build, "Shape", [value], {"start": axis, "end": axis + 1})
            return once(site, build, "Concat", [size, (1, 1)], {"axis": 0})
    raise AssertionError("x has its own batch")
