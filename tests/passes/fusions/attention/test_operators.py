"""Which operator an attention becomes, with which inputs and attributes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from attention_graphs import LOWEST, Form, Sizes, attention, fuse, still
from surroundings import check_kept

from leptonc.passes.fusions.attention.fuse import FUSE_ATTENTION, LOWER_ATTENTION
from leptonc.passes.pipeline import Context

OPERATORS = ("Attention", "MultiHeadAttention")


def fuse_and_lower(target: str) -> Callable[[ir.Model], None]:
    def rewrite(model: ir.Model) -> None:
        for step in (FUSE_ATTENTION, LOWER_ATTENTION):
            step.run(model, Context(target))

    return rewrite


def fused(form: Form, target: str) -> tuple[ir.Model, ir.Node]:
    """Return the rewritten model and the node that the attention became."""
    model = check_kept(still(attention(form)), fuse_and_lower(target))
    found = [node for node in model.graph if node.op_type in OPERATORS]
    assert len(found) == 1
    return model, found[0]


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def attributes(node: ir.Node) -> dict[str, object]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


@pytest.mark.parametrize("turn", ["once", "twice", "flattened"])
@pytest.mark.parametrize("scale", ["scores", "divided", "both"])
def test_cut_and_joined_heads_go_into_the_operator(turn, scale):
    model, node = fused(Form(turn=turn, scale=scale), "generic")
    assert operators(model) == ["Attention"]
    assert attributes(node) == {"scale": 0.25, "q_num_heads": 4, "kv_num_heads": 4}
    assert [value.name for value in node.inputs] == ["x0", "x1", "x2"]
    assert model.opset_imports[""] == 23


def test_heads_that_are_not_joined_keep_four_dimensions():
    model, node = fused(Form(source="flat", merge="none"), "generic")
    assert operators(model).count("Transpose") == 3
    assert attributes(node) == {"scale": 0.25}


def test_turned_heads_that_are_not_joined_are_cut_again():
    model, node = fused(Form(merge="turned"), "generic")
    assert operators(model) == ["Attention", "Reshape"]
    assert attributes(node)["q_num_heads"] == 4


def test_shared_heads_are_not_repeated():
    model, node = fused(Form(sizes=Sizes(shared=2)), "generic")
    assert operators(model) == ["Attention"]
    assert attributes(node) == {"scale": 0.25, "q_num_heads": 4, "kv_num_heads": 2}


def test_the_past_goes_into_the_operator():
    form = Form(sizes=Sizes(shared=2, past=2), mask="lowest")
    model, node = fused(form, "generic")
    assert operators(model) == ["Where", "Attention"]
    assert [value.shape.numpy() for value in node.inputs[4:]] == [(2, 2, 2, 8)] * 2
    assert len(node.outputs) == 3
    assert [value.name for value in model.graph.outputs[1:]] == [
        value.name for value in node.outputs[1:]
    ]


def test_capped_scores():
    _, node = fused(Form(softcap=True), "generic")
    assert attributes(node)["softcap"] == 2.0
    assert attributes(node)["scale"] == 0.25


def test_the_scale_of_a_projection_is_taken_in():
    model, node = fused(Form(source="scaled", scale="none"), "generic")
    # The values are scaled as well, which is no business of the scores.
    assert operators(model) == ["Mul", "Reshape", "Reshape", "Attention"]
    assert attributes(node)["scale"] == 0.25


def test_a_mask_of_the_lowest_number_is_raised_a_little():
    """ONNX Runtime answers 0 for a row of it, and not the mean of the values."""
    model, node = fused(Form(mask="lowest"), "generic")
    mask = node.inputs[3].producer()
    assert mask.op_type == "Where"
    fill = float(mask.inputs[2].const_value.numpy())
    assert LOWEST < fill < 0.98 * LOWEST


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize(
    ("mask", "built"),
    [("causal", ["Expand", "Trilu", "Equal", "Where"]), ("triangle", ["Expand", "Trilu"])],
)
def test_a_causal_mask_of_infinity_leaves_a_key_in_each_row(mask, built, guard):
    model, node = fused(Form(mask=mask, guard=guard), "generic")
    assert operators(model) == [*built, "Unsqueeze", "Attention"]
    assert node.inputs[3].producer().op_type == "Unsqueeze"


@pytest.mark.parametrize("mask", ["none", "lowest", "flat"])
def test_three_dimensions_have_one_head(mask):
    form = Form(source="single", merge="none", mask=mask, sizes=Sizes(heads=1))
    model, node = fused(form, "generic")
    assert attributes(node) == {"scale": 0.25, "q_num_heads": 1, "kv_num_heads": 1}
    built = {"none": [], "lowest": ["Where", "Unsqueeze"], "flat": ["Where", "Unsqueeze", "Expand"]}
    assert operators(model) == [*built[mask], "Attention"]
    assert [value.name for value in node.inputs[:3]] == ["x0", "x1", "x2"]


def test_keys_of_three_dimensions_that_are_given_turned_are_turned_back():
    pattern = attention(Form(source="single", merge="none", sizes=Sizes(heads=1)))
    turn = next(node for node in pattern.nodes if node.op_type == "Transpose")
    product = next(node for node in pattern.nodes if turn.output[0] in node.input)
    product.input[1] = turn.input[0]
    pattern.nodes.remove(turn)
    pattern.inputs["x1"] = pattern.inputs["x1"].swapaxes(1, 2)
    model = check_kept(still(pattern), fuse("generic"))
    assert operators(model) == ["Transpose", "Attention"]


def test_a_shape_that_was_merged_with_the_turning_of_the_keys_stays():
    pattern = attention(Form(turn="flattened", sizes=Sizes(shared=2)))
    expand = next(node for node in pattern.nodes if node.op_type == "Expand")
    joined = next(node for node in pattern.nodes if expand.output[0] in node.input)
    flat = next(node for node in pattern.nodes if joined.output[0] in node.input)
    flat.input[0] = expand.output[0]
    pattern.nodes.remove(joined)
    model = check_kept(still(pattern), fuse("generic"))
    assert operators(model) == ["Attention"]


def test_a_mask_of_unknown_columns_is_expanded():
    """The last product tells that they are those of the keys, or one."""
    for columns in (5, 1):
        pattern = attention(Form(mask="lowest"))
        pattern.inputs["x3"] = pattern.inputs["x3"][..., :columns]
        surrounded = still(pattern)
        mask = next(value for value in surrounded.model.graph.input if value.name == "x3")
        mask.type.tensor_type.shape.dim[3].Clear()
        mask.type.tensor_type.shape.dim[3].dim_param = "any"
        model = check_kept(surrounded, fuse("generic"))
        assert operators(model) == ["Where", "Expand", "Attention"]


def test_a_mask_of_one_row_is_expanded():
    model, node = fused(Form(mask="flat"), "generic")
    assert node.inputs[3].producer().op_type == "Expand"
    assert operators(model) == ["Where", "Expand", "Attention"]


def test_a_guard_that_has_nothing_to_guard_goes():
    model, _ = fused(Form(mask="lowest", guard=True), "generic")
    assert "IsNaN" not in operators(model)


def test_a_guarded_row_without_any_key_is_zero():
    model, node = fused(Form(mask="infinite", guard=True), "generic")
    assert operators(model) == ["Where", "Attention"]
    assert node.inputs[3].producer().inputs[2].const_value.numpy() == -np.inf


@pytest.mark.parametrize("source", ["projected", "packed", "gathered", "unbound"])
@pytest.mark.parametrize("target", ["ort-cpu", "ort-cuda"])
def test_projections_of_one_input_go_into_the_operator_of_onnx_runtime(source, target):
    form = Form(source=source, sizes=Sizes(columns=3), mask="added")
    model, node = fused(form, target)
    assert node.domain == "com.microsoft"
    assert operators(model) == ["Attention"]
    assert attributes(node) == {"num_heads": 4, "scale": 0.25}
    assert [tuple(value.shape) for value in node.inputs[1:3]] == [(6, 96), (96,)]
    # A product that was packed already keeps its weight.
    assert (node.inputs[1].name == "w0") == (source != "projected")


def test_values_of_another_width_are_told():
    form = Form(source="projected", sizes=Sizes(columns=3, value_width=4))
    _, node = fused(form, "ort-cpu")
    assert list(attributes(node)["qkv_hidden_sizes"]) == [32, 32, 16]


def test_padding_is_given_as_integers():
    form = Form(source="projected", sizes=Sizes(columns=3), mask="padding")
    model, node = fused(form, "ort-cpu")
    assert operators(model) == ["Cast", "Cast", "Attention"]
    assert attributes(node)["mask_filter_value"] == LOWEST
    assert node.inputs[3].dtype in (None, ir.DataType.INT32)


def test_two_inputs_become_a_multi_head_attention():
    model, node = fused(Form(mask="padding"), "ort-cpu")
    assert node.op_type == "MultiHeadAttention"
    assert operators(model) == ["Cast", "Cast", "MultiHeadAttention"]
    assert node.inputs[3] is None
    assert node.inputs[4] is not None


def test_the_past_goes_into_a_multi_head_attention():
    model, node = fused(Form(sizes=Sizes(past=2), mask="padding"), "ort-cpu")
    assert node.op_type == "MultiHeadAttention"
    assert len(node.outputs) == 3
    assert "Concat" not in operators(model)


@pytest.mark.parametrize(
    "form",
    [
        Form(sizes=Sizes(shared=2)),
        Form(softcap=True),
        Form(merge="none"),
        Form(sizes=Sizes(past=2, value_width=4, shared=2)),
    ],
)
def test_what_onnx_runtime_has_no_operator_for_becomes_the_standard_one(form):
    _, node = fused(form, "ort-cpu")
    assert (node.domain, node.op_type) == ("", "Attention")


@pytest.mark.parametrize("target", ["ort-cpu", "ort-cuda"])
def test_before_it_is_lowered_what_is_projected_is_one_product(target):
    """So that it can be quantised, which the packed operator cannot."""
    form = Form(source="projected", sizes=Sizes(columns=3), mask="added")
    model = check_kept(still(attention(form)), fuse(target))
    assert operators(model) == ["MatMul", "Add", "Split", "MultiHeadAttention"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v, n)", "a bias of its own"),
        (
            "y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v) z = Neg(v)",
            "'v' is also read by",
        ),
        (
            "y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v) z = Neg(m)",
            "'m' is also read by",
        ),
        ("y, z = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v)", "hands on its keys"),
    ],
)
def test_a_product_that_is_not_only_for_the_attention_stays(change, reason):
    six, twelve = ", ".join("123456"), ", ".join("123456654321")
    model = ir.from_onnx_text(f"""
    <ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>
    g (float[1,3,2] x) => (float[1,3,2] y{", float[p,q,r] z" if "z" in change else ""})
    <float[2,6] w = {{{twelve}}}, float[6] b = {{{six}}}, float[6] n = {{{six}}}> {{
        m = MatMul (x, w)
        s = Add (m, b)
        q, k, v = Split <axis = -1, num_outputs = 3> (s)
        {change}
    }}
    """)
    stats = LOWER_ATTENTION.run(model, Context("ort-cpu"))
    assert not stats.changed
    assert reason in stats.refused[0].reason
