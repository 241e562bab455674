"""Attention in every form that exporters write, in every surrounding: the outputs stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from attention_graphs import attention, draw_form, fuse, still
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from surroundings import check_kept, surround

TARGETS = ("generic", "primitive", "ort-cpu", "ort-cuda")


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_outputs_stay_in_any_surrounding(target, data):
    pattern = attention(draw_form(data.draw), data.draw(st.integers(0, 3)))
    model = check_kept(surround(data.draw, pattern), fuse(target))
    assert not fuse(target)(model).changed


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_most_forms_become_one_node(target):
    fused: list[bool] = []

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(data=st.data())
    def collect(data):
        form = draw_form(data.draw)
        model = check_kept(still(attention(form, data.draw(st.integers(0, 3)))), fuse(target))
        fused.append(not any(node.op_type == "Softmax" for node in model.graph))
        assert not fuse(target)(model).changed

    collect()
    assert np.mean(fused) > 0.7


def test_the_primitive_form_stays_for_engines_that_fuse_it_themselves():
    @settings(max_examples=20, deadline=None, database=None, derandomize=True)
    @given(data=st.data())
    def collect(data):
        model = ir.from_proto(still(attention(draw_form(data.draw))).model)
        fuse("primitive")(model)
        assert [node.op_type for node in model.graph].count("Softmax") == 1

    collect()
