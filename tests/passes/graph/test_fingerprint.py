"""The fingerprint of a graph: what changes it, what does not, and how a difference reads."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from leptonc.passes.graph.fingerprint import difference, fingerprint

TEXT = """<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 4] x) => (float[n, 2] y)
  <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}>
{
  a = Relu(x)
  b = Tanh(x)
  c = Add(a, b)
  d = Elu<alpha=0.5>(c)
  y = MatMul(d, w)
}"""


def of(parse, text=TEXT):
    return fingerprint(parse(text))


def test_the_order_of_independent_nodes_plays_no_part(parse):
    other = TEXT.replace("  a = Relu(x)\n  b = Tanh(x)\n", "  b = Tanh(x)\n  a = Relu(x)\n")
    assert other != TEXT
    assert difference(of(parse), of(parse, other)) is None


def test_where_the_weights_lie_and_notes_play_no_part(parse, tmp_path):
    model = parse(TEXT)
    before = fingerprint(model)
    value = model.graph.initializers["w"]
    (value.const_value,) = ir.external_data.convert_tensors_to_external(
        [value.const_value], tmp_path, "elsewhere.data"
    )
    for node in model.graph:
        node.name, node.doc_string = f"{node.name}_renamed", "a note"
        node.metadata_props["leptonc.pass"] = "clean"
    assert difference(before, fingerprint(model)) is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("alpha=0.5", "alpha=0.25", "the node that computes 'd': Elu(c) to d with alpha=0.5 there"),
        ("Tanh(x)", "Sin(x)", "the node that computes 'b': Tanh(x) to b there, Sin(x) to b here"),
        ("Add(a, b)", "Add(b, a)", "the node that computes 'c'"),
        ("3, 4, 5", "3, 4, 9", "the weight 'w': FLOAT [4, 2] sha256"),
        ("float[n, 4] x", "float[2, 4] x", "inputs: x FLOAT [n, 4] there, x FLOAT [2, 4] here"),
        ('"" : 20', '"" : 21', "operators of ai.onnx: version 20 there, version 21 here"),
        ("  b = Tanh(x)\n", "  e = Cos(x)\n  b = Tanh(e)\n", "'e': absent there, Cos(x) to e here"),
    ],
)
def test_a_difference_is_told_in_words(parse, old, new, words):
    assert old in TEXT
    found = difference(of(parse), of(parse, TEXT.replace(old, new)))
    assert found is not None and words in found


def test_a_missing_node_is_told(parse):
    shorter = TEXT.replace("  d = Elu<alpha=0.5>(c)\n", "").replace("MatMul(d", "MatMul(c")
    found = difference(of(parse), of(parse, shorter))
    assert "the node that computes 'y'" in found


def test_what_is_inside_a_branch_counts(parse):
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (bool p, float[n] x) => (float[n] y) {
      y = If(p) <
        then_branch = t () => (float[n] r) { r = Relu(x) },
        else_branch = e () => (float[n] s) { s = Tanh(x) }
      >
    }"""
    assert difference(of(parse, text), of(parse, text)) is None
    found = difference(of(parse, text), of(parse, text.replace("Tanh", "Sin")))
    assert "the node that computes 'y': If(p)" in found
