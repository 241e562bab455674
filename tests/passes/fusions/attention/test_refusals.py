"""Attentions that stay as they are, and the reason that is given."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from attention_graphs import Form, Sizes, attention, fuse, still
from surroundings import Pattern, check_kept

NO_SCORES = "is no scaled product of queries and keys with masks"


def refusals(pattern: Pattern, target: str = "generic", *, opset: int = 20) -> dict[str, str]:
    """Apply the pass, which must not fuse; return the reasons by rule."""
    stats = []

    def rewrite(model: ir.Model) -> None:
        stats.append(fuse(target)(model))

    model = check_kept(still(pattern, opset=opset), rewrite)
    assert [node.op_type for node in model.graph].count("Softmax") == 1
    return {refusal.rule: refusal.reason for refusal in stats[0].refused}


def changed(form: Form, change) -> Pattern:
    pattern = attention(form)
    change(pattern)
    return pattern


def node_of(pattern: Pattern, op_type: str) -> onnx.NodeProto:
    return next(node for node in pattern.nodes if node.op_type == op_type)


def test_a_row_of_nothing_but_infinity_is_not_hidden():
    reasons = refusals(attention(Form(mask="infinite")))
    assert reasons == {
        "attention": "the mask might have a row of nothing but -inf, which makes NaN"
    }


def test_an_unknown_mask_might_hold_infinity():
    assert refusals(attention(Form(mask="input"))) == {
        "attention": "the mask might have a row of nothing but -inf"
    }


def test_the_operators_of_onnx_runtime_do_not_mind_infinity():
    model = check_kept(still(attention(Form(mask="infinite"))), fuse("ort-cpu"))
    assert [node.op_type for node in model.graph] == ["Where", "MultiHeadAttention"]


def test_but_for_the_guard():
    reasons = refusals(attention(Form(mask="input", guard=True)), "ort-cpu")
    assert reasons["multi-head-attention"] == (
        "the mask might have a row of nothing but -inf, which is guarded"
    )
    assert reasons["attention-guard"] == "the mask might have a row of nothing but -inf"


@pytest.mark.parametrize("op_type", ["Softmax", "MatMul", "Mul"])
def test_what_is_inside_is_also_an_output(op_type):
    pattern = attention(Form())
    name = node_of(pattern, op_type).output[0]
    pattern.outputs.append(name)
    assert refusals(pattern) == {"attention": f"{name!r} is an output of the graph"}


def test_what_is_inside_is_also_read_by_another_node():
    pattern = attention(Form())
    name = node_of(pattern, "Softmax").output[0]
    pattern.outputs.append(pattern.add("Neg", name))
    assert refusals(pattern) == {"attention": f"{name!r} is also read by 'node_13' (Neg)"}


@pytest.mark.parametrize("source", ["flat", "single"])
def test_products_of_queries_and_keys_of_another_rank(source):
    pattern = attention(Form(source=source, merge="none", sizes=Sizes(heads=1, batch=1)))
    value = node_of(pattern, "Softmax").output[0]
    product = next(node for node in pattern.nodes if value in node.input)
    axes = pattern.weight(np.array([0], np.int64))
    op_type = "Squeeze" if source == "flat" else "Unsqueeze"
    product.input[1] = pattern.add(op_type, product.input[1], axes)
    pattern.nodes.insert(pattern.nodes.index(product), pattern.nodes.pop())
    assert refusals(pattern) == {
        "attention": "queries, keys and values have different numbers of dimensions"
    }


def test_batches_that_broadcast():
    pattern = attention(Form(sizes=Sizes(batch=1)))
    pattern.inputs["x1"] = np.repeat(pattern.inputs["x1"], 2, axis=0)
    assert refusals(pattern) == {
        "attention": "the keys are not known to have as many examples as the queries"
    }


def test_a_mask_that_makes_the_scores_larger():
    pattern = attention(Form(mask="lowest", sizes=Sizes(batch=1)))
    pattern.inputs["x3"] = np.repeat(pattern.inputs["x3"], 2, axis=0)
    reasons = refusals(pattern)
    assert list(reasons) == ["attention"]
    assert reasons["attention"].endswith("is not known to have the dimensions of the scores")


def test_an_opset_that_is_not_raised():
    pattern = attention(Form())
    grid = pattern.add(
        "Resize",
        pattern.input(np.ones((1, 1, 2, 2), np.float32)),
        "",
        pattern.weight(np.array([1, 1, 2, 2], np.float32)),
    )
    pattern.outputs.append(grid)
    reasons = refusals(pattern, opset=18)
    assert reasons["attention"].startswith("opset 18 is not raised to 23")


def test_a_softmax_over_several_axes():
    assert refusals(attention(Form()), opset=12) == {}


def test_a_softmax_over_another_axis():
    def change(pattern: Pattern) -> None:
        node_of(pattern, "Softmax").attribute[0].i = 2

    assert refusals(changed(Form(), change)) == {
        "attention": "'node_9' does not go over the last axis"
    }


def test_a_guard_that_is_not_zero():
    def change(pattern: Pattern) -> None:
        pattern.weights[node_of(pattern, "Where").input[1]] = np.array(1, np.float32)

    assert refusals(changed(Form(guard=True), change)) == {}


def test_a_negative_scale():
    def change(pattern: Pattern) -> None:
        pattern.weights[node_of(pattern, "Mul").input[1]] = np.array(-0.5, np.float32)

    assert refusals(changed(Form(), change)) == {"attention": f"'mul_8_0' {NO_SCORES}"}


def test_a_scale_for_each_head():
    def change(pattern: Pattern) -> None:
        scale = np.array([1, 2, 3, 4], np.float32).reshape(4, 1, 1)
        pattern.weights[node_of(pattern, "Mul").input[1]] = scale

    assert refusals(changed(Form(), change)) == {"attention": f"'mul_8_0' {NO_SCORES}"}


def test_a_mask_that_is_scaled():
    pattern = attention(Form(scale="none", mask="added"))
    added = node_of(pattern, "Add")
    softmax = node_of(pattern, "Softmax")
    scaled = pattern.add("Mul", added.output[0], pattern.weight(np.array(0.5, np.float32)))
    pattern.nodes.insert(pattern.nodes.index(softmax), pattern.nodes.pop())
    softmax.input[0] = scaled
    assert refusals(pattern) == {"attention": f"'mul_13_0' {NO_SCORES}"}


def test_a_small_number_in_the_place_of_masked_scores():
    """A row without any key would weigh its keys by their scores."""

    def change(pattern: Pattern) -> None:
        pattern.weights[node_of(pattern, "Where").input[1]] = np.array(-100, np.float32)

    assert refusals(changed(Form(mask="chosen"), change)) == {
        "attention": f"'where_10_0' {NO_SCORES}"
    }


def test_heads_that_are_repeated_in_another_order():
    """[0, 1, 0, 1] is not [0, 0, 1, 1]."""

    def change(pattern: Pattern) -> None:
        unsqueezes = [node for node in pattern.nodes if node.op_type == "Unsqueeze"]
        expands = [node for node in pattern.nodes if node.op_type == "Expand"]
        for unsqueeze, expand in zip(unsqueezes, expands, strict=True):
            pattern.weights[unsqueeze.input[1]] = np.array([1], np.int64)
            shape = pattern.weights[expand.input[1]]
            pattern.weights[expand.input[1]] = shape[[0, 2, 1, 3, 4]]

    model = check_kept(still(changed(Form(sizes=Sizes(shared=2)), change)), fuse("generic"))
    assert "Expand" in [node.op_type for node in model.graph]


def test_values_in_another_order_of_axes():
    def change(pattern: Pattern) -> None:
        turns = [node for node in pattern.nodes if node.op_type == "Transpose"]
        turns[-1].attribute[0].ints[:] = [0, 2, 3, 1]
        join = pattern.nodes[-1]
        pattern.weights[join.input[1]] = np.array([0, 0, -1], np.int64)

    model = check_kept(still(changed(Form(), change)), fuse("generic"))
    assert "Transpose" in [node.op_type for node in model.graph]


def test_half_precision_and_a_row_without_any_key():
    pattern = attention(Form(mask="lowest", sizes=Sizes(batch=1)))
    for table in (pattern.inputs, pattern.weights):
        for name, array in table.items():
            if array.dtype == np.float32:
                table[name] = np.clip(array, -65504, 65504).astype(np.float16)
    assert refusals(pattern) == {
        "attention": "the mask might have a row without any key,"
        " which depends on rounding in float16"
    }


def test_a_projection_that_is_read_elsewhere_is_not_computed_twice():
    pattern = attention(Form(source="projected", sizes=Sizes(columns=3)))
    keys = [node for node in pattern.nodes if node.op_type == "MatMul"][1]
    pattern.outputs.append(keys.output[0])
    stats = []
    model = check_kept(still(pattern), lambda model: stats.append(fuse("ort-cpu")(model)))
    assert "MultiHeadAttention" in [node.op_type for node in model.graph]


def test_a_weight_that_is_read_elsewhere_is_not_stored_twice():
    pattern = attention(Form(source="projected", sizes=Sizes(columns=3)))
    weight = next(node for node in pattern.nodes if node.op_type == "MatMul").input[1]
    pattern.outputs.append(pattern.add("Neg", weight))
    model = check_kept(still(pattern), fuse("ort-cpu"))
    assert "MultiHeadAttention" in [node.op_type for node in model.graph]
