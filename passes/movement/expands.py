"""Expands that change nothing, or that broadcasting does anyway.

    Expand(x, s)                ->  x              if x has the shape that it is expanded to
    Add(Expand(x, s), y)        ->  Add(x, y)      if the sum has the same shape without

The second holds for every operator that broadcasts. All are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.rewriting.broadcasting import BROADCASTING, all_true, broadcast
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule, read_match
from leptonc.passes.rewriting.site import Site, commuted

_FIRST_OPSET = 13


def _same_shape(site: Site) -> ir.Value | None:
    source = site.input(0)
    dims = site.facts.symbolic(source)
    same = dims is not None and dims == site.facts.symbolic(site.node.outputs[0])
    return source if same and site.opset >= _FIRST_OPSET else None


@dataclass(frozen=True)
class Needless:
    """Inputs of a broadcasting node, with what to read instead of its Expands."""

    inputs: tuple[ir.Value, ...]


def _needless(site: Site) -> Needless | None:
    values = [value for value in site.node.inputs if value is not None]
    if len(values) != len(site.node.inputs) or site.opset < _FIRST_OPSET:
        return None
    whole = broadcast([site.facts.symbolic(value) for value in values])
    if whole is None:
        return None
    bare = list(values)
    for index, value in enumerate(values):
        expand = site.producer(value, "Expand")
        if expand is None or expand.inputs[0] is None:
            continue
        others = [*bare[:index], expand.inputs[0], *bare[index + 1 :]]
        if broadcast([site.facts.symbolic(other) for other in others]) == whole:
            bare[index] = expand.inputs[0]
    return Needless(tuple(bare)) if bare != values else None


def _without(site: Site, match: Needless, build: Build) -> Rewritten:
    node, out = site.node, site.node.outputs[0]
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return {out: build.op(node.op_type, list(match.inputs), attributes, like=out)}


def _and_true(site: Site) -> ir.Value | None:
    whole = site.facts.symbolic(site.node.outputs[0])
    for certain, other in commuted(site.node):
        if whole is not None and whole == site.facts.symbolic(other) and all_true(certain, site):
            return other
    return None


RULES = (
    Rule("expand-known", ("Expand",), _same_shape, None, read_match),
    Rule("expand-needless", BROADCASTING, _needless, None, _without),
    Rule("and-true", ("And",), _and_true, None, read_match),
)
