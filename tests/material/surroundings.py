"""Graphs around a pattern, for property tests of rules.

A pattern is drawn by its test: nodes, inputs, weights. `surround` then puts it where rewrites go
wrong: an inner value becomes an output of the graph or gets another reader, the shapes are
declared or left symbolic, and the whole or a tail of it moves into the branch of an If that
captures the rest. `check_kept` compares the outputs before and after on ONNX Runtime without any
of its own rewrites.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rule

Array = np.ndarray[Any, Any]
Rewrite = Callable[[ir.Model], object]


@dataclass
class Pattern:
    """What a test draws.

    Attributes:
        nodes: In order; the last one's first output is the result unless `outputs` says else.
        inputs: The graph's inputs with the arrays to feed.
        weights: The initializers.
        outputs: What must be computed; the last node's outputs when empty.
    """

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: dict[str, Array] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)

    def add(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any):
        """Append a node with the next free names; return its output, or its outputs."""
        names = [f"{op.lower()}_{len(self.nodes)}_{index}" for index in range(outputs)]
        node = helper.make_node(op, list(inputs), names, domain=domain, **attributes)
        node.name = f"node_{len(self.nodes)}"
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def input(self, array: Array) -> str:
        """Add an input of the graph; return its name."""
        name = f"x{len(self.inputs)}"
        self.inputs[name] = array
        return name

    def weight(self, array: Array) -> str:
        """Add an initializer; return its name."""
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name


@dataclass(frozen=True)
class Surrounded:
    """A model with the inputs to feed it."""

    model: onnx.ModelProto
    feeds: Mapping[str, Array]


def surround(
    draw: Any, pattern: Pattern, *, opset: int = 20, imports: Sequence[str] = ("com.microsoft",)
) -> Surrounded:
    """Draw a graph around `pattern`."""
    nodes = [clone(node) for node in pattern.nodes]
    inner = [name for node in nodes for name in node.output if name]
    outputs = list(pattern.outputs) or [name for name in nodes[-1].output if name]
    spare = [name for name in inner if name not in outputs]
    if spare and draw(st.integers(0, 3)) == 0:
        outputs.append(draw(st.sampled_from(spare)))
    if spare and draw(st.integers(0, 3)) == 0:
        read = draw(st.sampled_from(spare))
        nodes.append(helper.make_node("Identity", [read], [f"{read}_extra"], name="extra"))
        nodes.append(helper.make_node("Shape", [f"{read}_extra"], ["extra_shape"], name="extra2"))
        outputs.append("extra_shape")
    weights = [numpy_helper.from_array(array, name) for name, array in pattern.weights.items()]
    as_nodes = draw(st.booleans())
    if as_nodes:
        constants = [
            helper.make_node("Constant", [], [tensor.name], value=tensor, name=f"c_{tensor.name}")
            for tensor in weights
        ]
        nodes, weights = [*constants, *nodes], []
    in_branch = draw(st.sampled_from([None, None, "whole", "tail"]))
    inputs = [declare(draw, name, array) for name, array in pattern.inputs.items()]
    feeds = dict(pattern.inputs)
    if in_branch is not None:
        start = 0 if in_branch == "whole" else draw(st.integers(0, len(nodes) - 1))
        nodes, outputs = _branch(nodes, outputs, start)
        inputs.append(helper.make_tensor_value_info("taken", onnx.TensorProto.BOOL, []))
        feeds["taken"] = np.array(True)
    graph = helper.make_graph(
        nodes, "surrounded", inputs, [onnx.ValueInfoProto(name=name) for name in outputs], weights
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in imports)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return Surrounded(with_output_types(model, feeds), feeds)


def alone(pattern: Pattern, *, opset: int = 20) -> ir.Model:
    """Build a model of a pattern with nothing around it, and with its own sizes."""
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in pattern.inputs.items()
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in pattern.weights.items()]
    last = onnx.ValueInfoProto(name=pattern.nodes[-1].output[0])
    graph = helper.make_graph(pattern.nodes, "alone", inputs, [last], weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def times_each_fires(
    draw_pattern: Callable[[Any], Pattern],
    rules: Sequence[Rule[Any]],
    *,
    target: str = "generic",
    opset: int = 20,
) -> Counter[str]:
    """Rewrite 120 drawn patterns with nothing around them; return in how many each rule fires."""
    fired: Counter[str] = Counter()

    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(st.data())
    def rewrite(data: st.DataObject) -> None:
        model = alone(draw_pattern(data.draw), opset=opset)
        fired.update(dict(apply_rules(model, "rules", rules, target=target).counts).keys())

    rewrite()
    return fired


def clone(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def declare(draw: Any, name: str, array: Array) -> onnx.ValueInfoProto:
    """Declare an input with its own sizes, or with some of them left symbolic."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    open_axes = draw(st.sampled_from([(), (), (0,), tuple(range(array.ndim))]))
    dims = [
        f"{name}_{axis}" if axis in open_axes else size for axis, size in enumerate(array.shape)
    ]
    return helper.make_tensor_value_info(name, kind, dims)


def _branch(
    nodes: list[onnx.NodeProto], outputs: list[str], start: int
) -> tuple[list[onnx.NodeProto], list[str]]:
    """Move the nodes from `start` on into both branches of an If."""
    outside, inside = nodes[:start], nodes[start:]
    made = {name for node in inside for name in node.output}
    moved = [name for name in outputs if name in made]
    renamed = [f"{name}_taken" for name in moved]

    def body(tag: str) -> onnx.GraphProto:
        # The two branches must not define a name twice for readers that flatten them.
        rename = {name: f"{name}{tag}" for name in made if name}
        copies = [clone(node) for node in inside]
        for copy in copies:
            copy.name = f"{copy.name}{tag}"
            copy.input[:] = [rename.get(name, name) for name in copy.input]
            copy.output[:] = [rename.get(name, name) for name in copy.output]
        ends = [onnx.ValueInfoProto(name=rename[name]) for name in moved]
        return helper.make_graph(copies, f"body{tag}", [], ends)

    node = helper.make_node(
        "If", ["taken"], renamed, name="if", then_branch=body("_t"), else_branch=body("_e")
    )
    kept = [name for name in outputs if name not in made]
    return [*outside, node], [*kept, *renamed]


def with_output_types(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> onnx.ModelProto:
    """Declare for each output the type and the rank that it turns out to have."""
    results = run_plain(model, feeds)
    for info in model.graph.output:
        array = results[info.name]
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        dims = [f"{info.name}_{axis}" for axis in range(array.ndim)]
        info.CopyFrom(helper.make_tensor_value_info(info.name, kind, dims))
    return model


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_plain(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run on ONNX Runtime as it stands, and return the outputs by name."""
    session = _session(model)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


def check_kept(
    surrounded: Surrounded,
    rewrite: Rewrite,
    *,
    exact: bool = False,
    relative: float = 2e-5,
    valid: bool = True,
) -> ir.Model:
    """Rewrite and compare every output; return the rewritten model.

    Args:
        surrounded: The model and its inputs.
        rewrite: Changes an `ir.Model` in place.
        exact: Ask for equal bits.
        relative: The largest error allowed, as a part of the largest element of the output.
        valid: Let ONNX check the result; it does not know what ONNX Runtime adds to its domain.
    """
    before = run_plain(surrounded.model, surrounded.feeds)
    model = ir.from_proto(surrounded.model)
    rewrite(model)
    proto = ir.to_proto(model)
    if valid:
        onnx.checker.check_model(proto)
    after = run_plain(proto, surrounded.feeds)
    assert list(after) == list(before)
    for name, expected in before.items():
        got = after[name]
        assert got.shape == expected.shape, name
        assert got.dtype == expected.dtype, name
        if exact or expected.dtype.kind not in "f":
            np.testing.assert_array_equal(got, expected, err_msg=name)
            continue
        slack = relative * (400 if expected.dtype == np.float16 else 1)
        finite = np.abs(expected[np.isfinite(expected)])
        scale = float(finite.max()) if finite.size else 0.0
        np.testing.assert_allclose(
            got.astype(np.float64),
            expected.astype(np.float64),
            rtol=slack,
            atol=slack * max(scale, 1e-30),
            err_msg=name,
        )
    return model
