"""Einsums that become products of matrices, and those that stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_graphs import operators, reasons, rewritten
from surroundings import Pattern, check_kept, surround

from leptonc.passes.fusions.linear.einsum import RULES
from leptonc.passes.fusions.linear.fuse import PLAIN_LINEAR


def graph(equation: str, a: str, b: str, y: str, kind: str = "float") -> str:
    body = f'y = Einsum<equation = "{equation}">(a, b)'
    return f"g ({kind}[{a}] a, {kind}[{b}] b) => ({kind}[{y}] y) {{ {body} }}"


@pytest.mark.parametrize(
    ("equation", "a", "b", "y", "nodes"),
    [
        ("ij,jk->ik", "2,3", "3,4", "2,4", ["MatMul"]),
        ("ij,jk->ki", "2,3", "3,4", "4,2", ["Transpose", "Transpose", "MatMul"]),
        ("bhid,bhjd->bhij", "2,2,3,4", "2,2,5,4", "2,2,3,5", ["Transpose", "MatMul"]),
        ("bhij, bhjd -> bhid", "2,2,3,5", "2,2,5,4", "2,2,3,4", ["MatMul"]),
        (
            "bthd,bshd->bhts",
            "2,3,2,4",
            "2,5,2,4",
            "2,2,3,5",
            ["Transpose", "Transpose", "MatMul"],
        ),
        (
            "bhts,bshd->bthd",
            "2,2,3,5",
            "2,5,2,4",
            "2,3,2,4",
            ["Transpose", "MatMul", "Transpose"],
        ),
        ("nic,njc->nij", "b,s,8", "b,t,8", "b,s,t", ["Transpose", "MatMul"]),
    ],
)
def test_a_product_of_matrices(equation, a, b, y, nodes):
    model, stats = rewritten(graph(equation, a, b, y), RULES)
    assert stats.counts == (("einsum-product", 1),)
    assert operators(model) == nodes


@pytest.mark.parametrize(
    ("equation", "a", "b", "y"),
    [
        ("ij,jk", "2,3", "3,4", "2,4"),
        ("ii,ij->ij", "2,2", "2,4", "2,4"),
        ("...ij,...jk->...ik", "5,2,3", "5,3,4", "5,2,4"),
        ("ij,ij->ij", "2,3", "2,3", "2,3"),
        ("ij,kl->ikjl", "2,3", "4,5", "2,4,3,5"),
        ("ijk,kj->i", "2,3,4", "4,3", "2"),
        ("ij,jk->i", "2,3", "3,4", "2"),
        ("ijl,jk->ilk", "2,3,5", "3,4", "2,5,4"),
    ],
)
def test_other_sums_stay(equation, a, b, y):
    model, stats = rewritten(graph(equation, a, b, y), RULES)
    assert operators(model) == ["Einsum"]
    assert not stats.refused


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            graph("ij,jk->ik", "2,n", "m,4", "2,4"),
            "the sizes of 'j' are not known to be the same",
        ),
        (
            graph("ij,jk->ik", "2,3", "3,4", "2,4", "int32"),
            "'y' is no tensor of floating-point numbers",
        ),
    ],
)
def test_products_that_are_refused(text, reason):
    model, stats = rewritten(text, RULES)
    assert operators(model) == ["Einsum"]
    assert reasons(stats, "einsum-product") == [reason]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_outputs_stay_in_any_surrounding(data):
    sizes = dict(zip("abijk", (2, 3, 2, 4, 3), strict=True))
    batch = data.draw(st.sampled_from(["", "a", "ab"]))
    orders = [
        "".join(data.draw(st.permutations([*batch, *letters]))) for letters in ("ik", "kj", "ij")
    ]
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    pattern = Pattern()
    given_values = [
        pattern.input(random.standard_normal([sizes[letter] for letter in order]).astype("float32"))
        for order in orders[:2]
    ]
    equation = f"{orders[0]},{orders[1]}->{orders[2]}"
    pattern.outputs = [pattern.add("Einsum", *given_values, equation=equation)]
    model = check_kept(surround(data.draw, pattern), lambda model: PLAIN_LINEAR.run(model))
    assert not PLAIN_LINEAR.run(model).changed
