"""Builds for ONNX Runtime on a GPU, on machines with and without one.

The artifact is the same in both cases: our own graph, in the contrib form that the CUDA provider
fuses, which the engine's optimiser finishes when it is loaded, since its kernels and layouts depend
on the GPU. Where there is no GPU, operators without a CUDA kernel are refused from a table, and the
graph is proven on the CPU; where there is one, the engine's own report says which provider took
each node, and a node that was left on the CPU is an error.

What computes shapes alone stays on the CPU on purpose: the engine needs the numbers there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from leptonc.backends.base import Payload, Target
from leptonc.backends.canonical_graph import canonicalise
from leptonc.backends.errors import PlacementError, UnsupportedOperatorError
from leptonc.backends.ort.cuda_kernels import missing_kernel
from leptonc.backends.ort.session import demands, refuse
from leptonc.backends.saved_graph import saved
from leptonc.passes.facts.facts import Facts, infer_facts
from leptonc.runtime.engines.ort.cuda_provider import CUDA, require_cuda, session_on_cuda
from leptonc.runtime.engines.ort.library import engine_failures, session_options
from leptonc.runtime.errors import EnvironmentProblem

_FLOATS = frozenset(
    {
        *(ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE),
    }
)


def build_for_cuda(
    engine: Any,
    source: ir.Model,
    target: Target,
    folder: Path,
    disabled: tuple[str, ...],
) -> Payload:
    """Build `source`, which becomes the payload's graph.

    Args:
        engine: The onnxruntime module, with or without the CUDA provider.
        source: At versions that the engine reads; changed.
        target: Device "gpu".
        folder: For large files, while this runs.
        disabled: Optimisers that the engine shall leave out.

    Raises:
        UnsupportedOperatorError: The CUDA provider has no kernel for a node.
        PlacementError: A node that computes floats did not land on the GPU.
    """
    facts = infer_facts(source)
    _require_kernels(source, facts)
    float_nodes = _nodes_with_floats(source, facts)
    detached = canonicalise(source)
    options = {
        "optimize": "extended",
        "disabled_optimizers": ",".join(disabled),
        "provider": CUDA,
    }
    not_run: str | None = None
    placement: dict[str, dict[str, int]] = {}
    try:
        require_cuda(engine)
    except EnvironmentProblem as problem:
        not_run = problem.what
    else:
        placement = _placed(engine, detached.model, options, float_nodes, folder)
    variant = target.variant({**demands(engine, detached), "provider": CUDA}, options)
    return Payload(variant, detached.graph, detached.weights, placement, detached.model, not_run)


def _placed(
    engine: Any,
    model: ir.Model,
    options: Mapping[str, str],
    float_nodes: frozenset[str],
    folder: Path,
) -> dict[str, dict[str, int]]:
    """Open the graph on the GPU, and see where its nodes went."""
    settings = session_options(engine)
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    with saved(model, folder) as path:
        try:
            session = session_on_cuda(engine, str(path), settings, options)
        except engine_failures(engine) as error:
            refuse(str(error), model, device="CUDA")
    return read_cuda_placement(session.get_provider_graph_assignment_info(), float_nodes)


def _require_kernels(model: ir.Model, facts: Facts) -> None:
    for node in model.graph.all_nodes():
        dtype = facts.dtype(node.inputs[0]) if node.inputs else None
        reason = missing_kernel(node, dtype)
        if reason is not None:
            raise UnsupportedOperatorError(
                f"ONNX Runtime cannot run {node.domain or 'ai.onnx'}::{node.op_type} on a GPU: "
                f"{reason}",
                where=f"node {node.name!r}",
                fix="write that part of the model with other operators, or use the target ort-cpu",
            )


def _nodes_with_floats(model: ir.Model, facts: Facts) -> frozenset[str]:
    """Return the names of the nodes that compute floats, which belong on the GPU."""
    return frozenset(
        node.name or ""
        for node in model.graph.all_nodes()
        if any(facts.dtype(value) in _FLOATS for value in node.outputs)
    )


def read_cuda_placement(assignment: Any, float_nodes: frozenset[str]) -> dict[str, dict[str, int]]:
    """Count the nodes of each provider, as the engine reports them.

    Args:
        assignment: What `get_provider_graph_assignment_info` of a session returns.
        float_nodes: Names of nodes that compute floats.

    Raises:
        PlacementError: One of them is not on the CUDA provider.
    """
    placement: dict[str, Counter[str]] = {}
    for subgraph in assignment:
        for node in subgraph.get_nodes():
            placement.setdefault(subgraph.ep_name, Counter())[node.op_type] += 1
            if subgraph.ep_name != CUDA and node.name in float_nodes:
                raise PlacementError(
                    f"node {node.name!r} ({node.op_type}) was asked for on the GPU and landed on "
                    f"{subgraph.ep_name}",
                    where=f"node {node.name!r}",
                    fix="write that part of the model with other operators, or in fp32; "
                    "or use the target ort-cpu",
                )
    return {name: dict(sorted(counts.items())) for name, counts in sorted(placement.items())}
