"""What the tests of the passes share: graphs as ONNX text, and ONNX Runtime as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from text_graphs import parse_text


@pytest.fixture
def parse() -> Callable[[str], ir.Model]:
    return parse_text


@pytest.fixture
def assert_graph() -> Callable[..., None]:
    """Compare a model with ONNX text, apart from node names, metadata and inner shapes."""

    def compare(model: ir.Model, expected: str, *, valid: bool = True) -> None:
        if valid:
            onnx.checker.check_model(ir.to_proto(model))
        assert canonical(model) == canonical(parse_text(expected))

    return compare


def canonical(model: ir.Model) -> str:
    proto = ir.to_proto(model)
    for graph in [proto.graph, *inner(proto.graph)]:
        del graph.value_info[:]
        initializers = sorted(graph.initializer, key=lambda tensor: tensor.name)
        plain = [
            numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name)
            for tensor in initializers
        ]
        del graph.initializer[:]
        graph.initializer.extend(plain)
        for node in graph.node:
            node.name = ""
            del node.metadata_props[:]
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    array = numpy_helper.to_array(attribute.t)
                    attribute.t.CopyFrom(numpy_helper.from_array(array))
    return f"{onnx.printer.to_text(proto.graph)}\n{proto.functions}"


def inner(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    found = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return [*found, *(deeper for one in found for deeper in inner(one))]


@pytest.fixture
def run() -> Callable[[ir.Model, Mapping[str, Any]], list[Any]]:
    """Run a model on ONNX Runtime without any of its own rewrites."""

    def run_plain(model: ir.Model, feeds: Mapping[str, Any]) -> list[Any]:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # The engine sums a packed constant matrix in another order than one that it computed.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        wanted = {value.name for value in session.get_inputs()}
        return session.run(
            None, {name: np.asarray(v) for name, v in feeds.items() if name in wanted}
        )

    return run_plain


@pytest.fixture
def counts() -> Callable[[Any], dict[str, int]]:
    """The counts of one or several PassStats, added up."""

    def add(stats: Any) -> dict[str, int]:
        total: dict[str, int] = {}
        for one in stats if isinstance(stats, tuple) else (stats,):
            for name, number in one.counts:
                total[name] = total.get(name, 0) + number
        return total

    return add
