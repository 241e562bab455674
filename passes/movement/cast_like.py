"""Casts to the type of another value, where that type is known.

    CastLike(x, y)  ->  Cast(x, to=the type of y)

A constant that is cast so can be folded, and y is no longer needed for it. Exact.
"""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.graph.insertion import AttributeValue
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site


def _known(site: Site) -> ir.DataType | None:
    if site.input(0) is None or len(site.node.inputs) != 2:
        return None
    dtype = site.facts.dtype(site.input(1))
    return None if dtype == ir.DataType.UNDEFINED else dtype


def _cast(site: Site, match: ir.DataType, build: Build) -> Rewritten:
    attributes: dict[str, AttributeValue] = {
        name: attribute.value for name, attribute in site.node.attributes.items()
    }
    attributes["to"] = match.value
    out = site.node.outputs[0]
    return {out: build.op("Cast", [site.input(0)], attributes, like=out)}


RULES = (Rule("cast-like-known", ("CastLike",), _known, None, _cast),)
