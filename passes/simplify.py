"""Runs onnxsim, for those who ask for it by name.

onnxsim works on one protobuf in memory, so models that do not fit in one are refused. Its graph
is taken only if it is valid and keeps the interface; the model around it stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.errors import PassRefusedError
from leptonc.passes.graph.content import digest
from leptonc.passes.graph.structure import count_nodes, graphs
from leptonc.passes.graph.validity import Interface, find_problem
from leptonc.passes.pipeline import Context

# A protobuf ends at 2 GiB, and onnxsim adds to it: stop before.
_LARGEST_MODEL = (1 << 31) - (1 << 26)


@dataclass(frozen=True)
class Simplify:
    """Let onnxsim rewrite the graph."""

    name: ClassVar[str] = "simplify"

    def requires(self, model: ir.Model) -> str | None:
        """Ask for onnxsim, and for a model that it can hold."""
        if find_spec("onnxsim") is None:
            return "onnxsim is not installed (pip install 'leptonc[compile]')"
        if model.functions:
            return "it has functions, which onnxsim may drop"
        size = sum(
            value.const_value.nbytes
            for graph in graphs(model.graph)
            for value in graph.initializers.values()
            if value.const_value is not None
        )
        if size > _LARGEST_MODEL:
            return f"its weights take {size} bytes, and onnxsim holds less than 2 GiB"
        return None

    def run(self, model: ir.Model, _: Context = Context()) -> PassStats:
        """Replace the graph of `model` by onnxsim's.

        Raises:
            PassRefusedError: onnxsim failed, or changed what it must not.
        """
        before = count_nodes(model)
        simplified = ir.from_proto(_simplified(model))
        graph, old = simplified.graph, model.graph
        _restore_declarations(graph, old)
        problem = find_problem(simplified)
        if problem is not None:
            raise _refusal(f"left an invalid graph: {problem.what}, {problem.where}")
        if Interface.of(graph) != Interface.of(old):
            raise _refusal("changed the inputs or outputs of the graph")
        if graph.opset_imports != old.opset_imports:
            raise _refusal("changed the opset versions")
        _restore_weights(graph, old)
        graph.name, graph.doc_string = old.name, old.doc_string
        graph.metadata_props.update(old.metadata_props)
        model.graph = graph
        after = count_nodes(model)
        removed = max(0, before - after)
        counts = (("nodes removed", removed),) if removed else ()
        return PassStats(self.name, counts, nodes_before=before, nodes_after=after)


def _simplified(model: ir.Model) -> Any:
    import onnxsim
    from onnx.checker import ValidationError
    from onnx.shape_inference import InferenceError

    proto = ir.to_proto(_with_weights_inside(model))
    try:
        result, _ = onnxsim.simplify(proto, certify=False)
    except (
        *(RuntimeError, ValueError, TypeError, AssertionError, MemoryError),
        *(ValidationError, InferenceError),
    ) as error:
        lines = str(error).strip().splitlines()
        raise _refusal(f"failed: {lines[0] if lines else type(error).__name__}") from error
    return result


def _refusal(what: str) -> PassRefusedError:
    return PassRefusedError(
        f"onnxsim cannot be used on this model: it {what}", fix="compile without onnxsim"
    )


def _with_weights_inside(model: ir.Model) -> ir.Model:
    twin = model.clone()
    for graph in graphs(twin.graph):
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
    return twin


def _restore_declarations(graph: ir.Graph, old: ir.Graph) -> None:
    """Undo refinements of the declared shapes of inputs and outputs."""
    declared = {value.name: value for value in (*old.inputs, *old.outputs)}
    for value in (*graph.inputs, *graph.outputs):
        original = declared.get(value.name)
        if original is not None and original.type == value.type:
            value.shape, value.doc_string = original.shape, original.doc_string
            value.metadata_props.update(original.metadata_props)


def _restore_weights(graph: ir.Graph, old: ir.Graph) -> None:
    """Let unchanged weights be the lazy tensors that they were."""
    for name, value in graph.initializers.items():
        original = old.initializers.get(name)
        tensor = None if original is None else original.const_value
        copy = value.const_value
        if tensor is None or copy is None or tensor.dtype != copy.dtype:
            continue
        if tensor.shape == copy.shape and digest(tensor) == digest(copy):
            value.const_value = tensor
