"""Calls into ONNX Runtime while building, and what its refusals mean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import onnx_ir as ir

from leptonc.backends.base import INLINE_BYTES, PayloadWeight
from leptonc.backends.canonical_graph import Detached
from leptonc.backends.errors import PlacementError, UnsupportedOperatorError
from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.engines.ort.library import (
    engine_failures,
    import_engine,
    open_session,
    session_options,
)
from leptonc.runtime.engines.ort.weights import SharedWeight, share_weight
from leptonc.runtime.errors import EngineError

CPU = "CPUExecutionProvider"
# How ONNX Runtime words that it cannot run a node: no kernel, no such operator, no such type.
_KERNEL_MESSAGES = tuple(
    re.compile(pattern)
    for pattern in (
        r"implementation for (?P<op>\w+)\([^)]*\) node with name '(?P<name>[^']*)'",
        r"In Node, \(\"(?P<name>[^\"]*)\", (?P<op>\w+), .*No Op registered",
        r"No Op registered for (?P<op>\w+)",
        r":(?P<op>\w+)\([-\d]*\) is not a registered function/op",
        r"of operator \((?P<op>\w+)\) in node \((?P<name>.*?)\) is invalid",
    )
)


def optimise(
    source: ir.Model,
    path: Path,
    output: Path,
    *,
    layout: bool,
    disabled: Sequence[str],
) -> Path:
    """Run ONNX Runtime's optimiser over the file `path` and save what it makes.

    Args:
        source: The graph in `path`, to name nodes in errors.
        path: An .onnx file with external weights.
        output: Where to save; weights go beside it.
        layout: Also rearrange convolutions for this machine's instruction set.
        disabled: Optimisers to leave out.

    Raises:
        UnsupportedOperatorError: ONNX Runtime has no kernel for a node.
        EngineError: It refuses the graph for another reason.
    """
    engine = import_engine()
    levels = engine.GraphOptimizationLevel
    options = session_options(engine)
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if layout else levels.ORT_ENABLE_EXTENDED
    )
    options.optimized_model_filepath = str(output)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", f"{output.stem}.data"),
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(INLINE_BYTES + 1)),
        # Nothing will run here: packing would cost time and a copy of the weights.
        ("session.disable_prepacking", "1"),
    ):
        options.add_session_config_entry(key, value)
    try:
        engine.InferenceSession(
            str(path),
            options,
            providers=[CPU],
            disabled_optimizers=list(disabled),
            enable_fallback=0,
        )
    except engine_failures(engine) as error:
        refuse(str(error), source)
    return output


def demands(engine: Any, detached: Detached, instructions: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the manifest says that loading the graph takes.

    Args:
        engine: The onnxruntime module that it was built with.
        detached: The finished graph.
        instructions: Instruction sets of the CPU.
    """
    return {
        "engine": "onnxruntime",
        "engine_min": ".".join(str(engine.__version__).split(".")[:2]),
        "opset": detached.model.opset_imports.get("", 0),
        "instructions": list(instructions),
    }


def read_placement(engine: Any, source: ir.Model, detached: Detached) -> dict[str, dict[str, int]]:
    """Open the finished graph as it is stored, and see where its nodes went.

    Args:
        engine: The onnxruntime module.
        source: The graph before ONNX Runtime rewrote it, to name nodes in errors.
        detached: The finished graph.

    Returns:
        Provider to operator to count, sorted.

    Raises:
        PlacementError: A node is not on the CPU provider.
        UnsupportedOperatorError: ONNX Runtime has no kernel for a node.
    """
    options = session_options(engine)
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    weights = {weight.name: _in_memory(engine, weight) for weight in detached.weights}
    try:
        session = open_session(engine, detached.graph, weights, options, {})
    except engine_failures(engine) as error:
        refuse(str(error), source)
    placement: dict[str, Counter[str]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        for node in subgraph.get_nodes():
            placement.setdefault(subgraph.ep_name, Counter())[node.op_type] += 1
            if subgraph.ep_name != CPU:
                raise PlacementError(
                    f"node {node.name!r} ({node.op_type}) landed on {subgraph.ep_name}",
                    fix="build with a plain CPU package of onnxruntime",
                )
    return {name: dict(sorted(counts.items())) for name, counts in sorted(placement.items())}


def _in_memory(engine: Any, weight: PayloadWeight) -> SharedWeight:
    array = weight.tensor.numpy().view(ELEMENT_TYPES[weight.dtype].storage)
    return share_weight(engine, weight.dtype, array)


def refuse(message: str, source: ir.Model, *, device: str = "CPU") -> NoReturn:
    """Turn a refusal of ONNX Runtime into an error that names the node.

    Args:
        message: What the engine says.
        source: The graph that it was given.
        device: What it was to run on, for the message.

    Raises:
        UnsupportedOperatorError: The message is about an operator without a kernel.
        EngineError: Anything else.
    """
    node = _named_node(message, source)
    if node is None:
        raise EngineError(
            f"ONNX Runtime refuses the graph: {message}",
            fix="check the model with onnx.checker, and with the latest onnxruntime",
        )
    opset = source.opset_imports.get(node.domain)
    raise UnsupportedOperatorError(
        f"ONNX Runtime has no kernel on {device} for {node.domain or 'ai.onnx'}::{node.op_type} "
        f"at opset {opset} with these types",
        where=f"node {node.name!r}; ONNX Runtime says: {message}",
        fix="write that part of the model with other operators, or export at another opset",
    )


def _named_node(message: str, source: ir.Model) -> ir.Node | None:
    """Return the node that a message about a missing kernel or type is about."""
    for pattern in _KERNEL_MESSAGES:
        match = pattern.search(message)
        if match is None:
            continue
        found = match.groupdict()
        nodes = [node for node in _all_nodes(source) if node.op_type == found["op"]]
        named = [node for node in nodes if found.get("name") and node.name == found["name"]]
        for node in (*named, *nodes):
            return node
    return None


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()
