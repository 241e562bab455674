"""Constants of one element: what they hold, how near that is to a number, and their shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from leptonc.passes.rewriting.site import Site

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})

# What the kernels of ONNX Runtime's own operators take.
KERNEL_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
# What those take that join a sum with the node that reads it, on CUDA.
SUM_FLOATS = KERNEL_FLOATS | {ir.DataType.BFLOAT16}

# How far a product of up to three constants may be from its number, as a part of it: each was
# rounded once to eleven bits (float16), to eight (bfloat16), or written with seven digits.
_TOLERANCE = {ir.DataType.FLOAT16: 2e-3, ir.DataType.BFLOAT16: 1.2e-2}
_TOLERANCE_FLOAT = 1e-6


def is_near(found: float, expected: float, dtype: ir.DataType | None) -> bool:
    """Whether `found` is `expected`, but for the rounding of constants of type `dtype`."""
    tolerance = _TOLERANCE.get(dtype, _TOLERANCE_FLOAT) if dtype else _TOLERANCE_FLOAT
    return math.isclose(found, expected, rel_tol=tolerance)


def number(site: Site, value: ir.Value | None, beside: ir.Value) -> float | None:
    """Return the element of a constant that has one, and that broadcasts to `beside`.

    A constant of shape [1, 1] beside a vector would make a matrix of it: None.
    """
    found = site.scalar(value)
    if found is None or not math.isfinite(found):
        return None
    rank = site.facts.rank(value)
    if rank == 0:
        return found
    other = site.facts.rank(beside)
    return found if rank is not None and other is not None and rank <= other else None


def read_outside(site: Site, nodes: Sequence[ir.Node]) -> str | None:
    """Return why `nodes` cannot go with the anchor: something else reads what they compute."""
    inside = (site.node, *nodes)
    for node in nodes:
        for value in node.outputs:
            reason = site.read_elsewhere(value, inside)
            if reason is not None:
                return reason
    return None


def kept_dtype(site: Site, value: ir.Value, allowed: frozenset[ir.DataType] = FLOATS) -> str | None:
    """Return why the anchor's output is not known to have the type of `value`, one of `allowed`."""
    dtype = site.facts.dtype(value)
    if dtype not in allowed:
        return f"{value.name!r} is {dtype.name if dtype else 'of no known type'}"
    if site.facts.dtype(site.node.outputs[0]) != dtype:
        return f"the result is not {dtype.name}, as {value.name!r} is"
    return None
