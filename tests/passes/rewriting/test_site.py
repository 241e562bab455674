"""What a rule sees around its node: the chain behind a value."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.rewriting.site import Site


@pytest.fixture
def site(parse) -> Site:
    """Return the last node of a chain."""
    model: ir.Model = parse(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[2] x) => (float[2] y) { a = Neg(x)  b = Abs(a)  c = Exp(b)  y = Add(c, x) }"""
    )
    return Site(model.graph[-1], infer_facts(model), 20)


def test_a_chain_is_read_from_its_last_node(site):
    nodes = site.chain(site.input(0), "Exp", "Abs")
    assert nodes is not None
    assert [node.op_type for node in nodes] == ["Exp", "Abs"]


@pytest.mark.parametrize("operators", [("Abs",), ("Exp", "Neg"), ("Exp", "Abs", "Neg", "Neg")])
def test_a_chain_of_other_operators_is_none(site, operators):
    assert site.chain(site.input(0), *operators) is None


def test_what_comes_before(site):
    found = site.before(site.input(0), "Exp", "Log")
    assert found is not None
    assert found.name == "b"
    assert site.before(site.input(0), "Log") is None
    assert site.before(site.input(1)) is None
