"""TensorRT's messages, in the terms of our graph."""

from __future__ import annotations

import pytest
from tensorrt_graphs import graph

from leptonc.backends.tensorrt.errors import advice, build_refused, message_text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("plain words.", "plain words"),
        (
            "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (ITopKLayer y: y: K is "
            "too large (3840). In processCheck at /_src/a.cpp:1066 In analyze at /_src/b.cpp:2)",
            "ITopKLayer y: y: K is too large (3840)",
        ),
        (
            "[graph.cpp::check::12] Error Code 9: Internal Error (no such kernel) cudaError 35",
            "no such kernel)",
        ),
        ('(antialias == 0) && "Antialiasing is not supported."', "Antialiasing is not supported"),
        ("Assertion failed: inputs.at(2).is_weights(): Only constants.", "Only constants"),
        (
            "Input has type Int32 but is\n not quantisable",
            "Input has type Int32 but is not quantisable",
        ),
    ],
)
def test_a_message_loses_what_only_nvidia_can_read(message, text):
    assert message_text(message) == text


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        ("Non-zero zero point is not supported", "symmetrically"),
        ("Quantized constant is only allowed before DQ", "Conv, MatMul and Gemm"),
        ("input has type Int32", "biases"),
        ("cannot allocate 3 GB", "smaller profile"),
        ("anything else", "other operators"),
    ],
)
def test_each_known_refusal_has_its_advice(message, fix):
    assert fix in advice(message)


def test_the_longest_name_is_the_node():
    model = graph(
        "g (float[4] x) => (float[4] node_10) { node_1 = Relu(x)  node_10 = Abs(node_1) }"
    )
    error = build_refused({"log": ["trouble with node_10 near node_1"]}, model)
    assert error.where == "node 'node_10' (Abs)"


def test_a_build_that_says_nothing_says_where_it_was():
    model = graph("g (float[4] x) => (float[4] y) { y = Relu(x) }")
    error = build_refused({"log": [], "phase": "Timing tactics"}, model)
    assert error.what == "TensorRT cannot build the graph: it stopped in Timing tactics"
    assert error.where is None
