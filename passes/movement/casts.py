"""Two casts in a row, the first of which loses nothing.

    Cast(Cast(x, wide), to)  ->  Cast(x, to), or x where that is its own type

`wide` holds every value of the type of x exactly, so the second cast sees the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site

_T = ir.DataType
_SIGNED = (_T.INT8, _T.INT16, _T.INT32, _T.INT64)
_UNSIGNED = (_T.UINT8, _T.UINT16, _T.UINT32, _T.UINT64)
# How many bits of whole numbers a float type holds exactly.
_EXACT = {_T.FLOAT16: 11, _T.BFLOAT16: 8, _T.FLOAT: 24, _T.DOUBLE: 53}
_WIDER_FLOATS = {
    _T.FLOAT16: (_T.FLOAT, _T.DOUBLE),
    _T.BFLOAT16: (_T.FLOAT, _T.DOUBLE),
    _T.FLOAT: (_T.DOUBLE,),
}


@dataclass(frozen=True)
class Chain:
    """The value before both casts, its type and the last type."""

    source: ir.Value
    before: ir.DataType
    between: ir.DataType
    after: ir.DataType


def _chain(site: Site) -> Chain | None:
    inner = site.producer(site.input(0), "Cast")
    if inner is None or inner.inputs[0] is None:
        return None
    before = site.facts.dtype(inner.inputs[0])
    after = site.node.attributes.get_int("to", 0)
    between = inner.attributes.get_int("to", 0)
    if before is None or not after or not between:
        return None
    return Chain(inner.inputs[0], before, ir.DataType(between), ir.DataType(after))


def holds(wide: ir.DataType, narrow: ir.DataType) -> bool:
    """Whether every value of `narrow` is a value of `wide`."""
    if narrow == wide:
        return True
    if narrow == _T.BOOL:
        return wide in _SIGNED + _UNSIGNED or wide in _EXACT
    if narrow in _WIDER_FLOATS:
        return wide in _WIDER_FLOATS[narrow]
    if narrow not in _SIGNED + _UNSIGNED:
        return False
    bits = narrow.bitwidth - (narrow in _SIGNED)
    if wide in _EXACT:
        return bits <= _EXACT[wide]
    if wide in _SIGNED:
        return bits <= wide.bitwidth - 1
    return wide in _UNSIGNED and narrow in _UNSIGNED and bits <= wide.bitwidth


def _loses_nothing(site: Site, match: Chain) -> str | None:
    del site
    if not holds(match.between, match.before):
        return f"{match.between.name} does not hold every {match.before.name}"
    if match.after not in (*_SIGNED, *_UNSIGNED, *_EXACT, _T.BOOL):
        return f"casts to {match.after.name} are left alone"
    return None


def _direct(site: Site, match: Chain, build: Build) -> Rewritten:
    out = site.node.outputs[0]
    if match.after == match.before:
        return {out: match.source}
    return {out: build.again(site.node, [match.source], like=out)}


RULES = (Rule("cast-chain", ("Cast",), _chain, _loses_nothing, _direct),)
