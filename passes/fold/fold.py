"""Computes what is constant, exactly as the engine would.

ONNX Runtime evaluates, on the CPU and with its own rewrites off, so that a folded value has the
bits that the model would have computed. Small results are computed together in one session,
since opening one costs more than most of them; large ones one at a time.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from leptonc.passes.base import PassStats, Refusal
from leptonc.passes.facts.facts import Facts
from leptonc.passes.fold.branches import inline_constant_ifs
from leptonc.passes.fold.evaluator import EvaluationError, Evaluator, Results
from leptonc.passes.fold.materialize import lift_constants, replace_with_tensor
from leptonc.passes.fold.program import Program
from leptonc.passes.fold.region import Plan, make_plan
from leptonc.passes.fold.shapes import fold_shapes
from leptonc.passes.graph.content import unmapping
from leptonc.passes.graph.names import Names, separate_scopes
from leptonc.passes.graph.structure import Root, annotated_names, count_nodes, opset_of, roots
from leptonc.passes.graph.sweep import sweep
from leptonc.passes.pipeline import Context

# How many bytes earlier runs let the model grow by: a model stays within one budget for good.
GROWN = "leptonc.fold.grown"

# Weights above this size are lent to the engine; smaller ones are written into its graph.
_LENT = 1 << 16


@dataclass(frozen=True)
class Fold:
    """Replace what is constant by its value.

    Attributes:
        budget_bytes: By how much the model may grow, over all runs together: the results that
            are stored, less the weights that are then needless.
    """

    name: ClassVar[str] = "fold"
    budget_bytes: int = 8 << 20

    def requires(self, model: ir.Model) -> str | None:
        """Ask for the engine that evaluates."""
        del model
        if find_spec("onnxruntime") is None:
            return "onnxruntime is not installed (pip install 'leptonc[ort]')"
        return None

    def run(self, model: ir.Model, context: Context = Context()) -> PassStats:
        """Lift constants, take the branches that are known to be taken, and fold."""
        before = count_nodes(model)
        counts: Counter[str] = Counter()
        counts["scopes separated"] = separate_scopes(model)
        names, pinned = Names(model), annotated_names(model)
        counts["branches inlined"] = inline_constant_ifs(model, names)
        facts = context.known(model)
        grown = int(model.metadata_props.get(GROWN, "0"))
        refused: list[Refusal] = []
        for root in roots(model):
            counts["constants lifted"] += lift_constants(root)
            known = Facts(declared=False) if root.function else facts
            room = self.budget_bytes - grown
            shapes, size = fold_shapes(root, known, opset_of(model, root), names, room)
            opsets = dict(root.graph.opset_imports or model.opset_imports)
            plan, results = _decide(root, known, room - size, pinned, opsets)
            for value, tensor in results.items():
                replace_with_tensor(value, tensor, root, names)
            grown += size + plan.growth
            counts["shapes known"] += shapes
            counts["values folded"] += len(results)
            refused.extend(Refusal(node.name or "", why) for node, why in plan.refused.items())
        if grown > 0:
            model.metadata_props[GROWN] = str(grown)
        if +counts:
            sweep(model, pinned)
        return PassStats(
            name=self.name,
            counts=tuple(sorted((+counts).items())),
            nodes_before=before,
            nodes_after=count_nodes(model),
            refused=tuple(refused),
        )


def _decide(
    root: Root, facts: Facts, room: int, pinned: frozenset[str], opsets: dict[str, int]
) -> tuple[Plan, Results]:
    """Plan and evaluate until everything planned could be computed."""
    refused: dict[ir.Node, str] = {}
    while True:
        plan = make_plan(root, facts, room, pinned, refused)
        results, failures = Evaluator(plan, facts, opsets, run_program).evaluate()
        if not failures:
            return plan, results
        refused = {**plan.refused, **failures}


def run_program(program: Program) -> list[ir.TensorProtocol]:
    """Compute the outputs of `program` with ONNX Runtime.

    Raises:
        EvaluationError: It has no kernel, or refuses, or fails.
    """
    from leptonc.runtime.engines.ort.library import engine_failures, import_engine

    ort = import_engine()
    failures: tuple[type[BaseException], ...] = (*engine_failures(ort), OSError)
    # The engine wants the file of a lent weight to exist, and never opens it.
    library = Path(ort.capi.onnxruntime_pybind11_state.__file__)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(library.parent)
    )
    try:
        with unmapping(program.weights.values()):
            return _run(ort, options, program, library.name)
    except failures as error:
        lines = str(error).strip().splitlines()
        raise EvaluationError(lines[0] if lines else type(error).__name__) from error


def _run(ort: Any, options: Any, program: Program, library: str) -> list[ir.TensorProtocol]:
    """Run once and let go of the weights, so that their files can be unmapped."""
    lent = _bind_weights(ort, options, program, library)
    graph = ir.to_proto(program.model).SerializeToString()
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    results = [_tensor(value) for value in session.run_with_ort_values(None, {})]
    for value in program.weights:
        value.const_value = None
    # In this order: the session has bare pointers to what was lent.
    del session, lent
    return results


def _bind_weights(ort: Any, options: Any, program: Program, library: str) -> list[Any]:
    """Give `program` its weights; return what must live as long as the session."""
    lent = []
    for value, tensor in program.weights.items():
        name, dtype = value.name or "", tensor.dtype
        if dtype == ir.DataType.STRING:
            texts = tensor.numpy().reshape(-1).tolist()
            value.const_value = ir.StringTensor(texts, shape=value.shape, name=name)
        elif tensor.nbytes <= _LENT or dtype.bitwidth < 8:
            value.const_value = ir.Tensor(tensor.numpy(), dtype=dtype, name=name)
        else:
            array = np.ascontiguousarray(tensor.numpy())
            storage = array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array
            make = ort.OrtValue.ortvalue_from_numpy_with_onnx_type
            lent.append(make(storage, dtype.value))
            options.add_initializer(name, lent[-1])
            shape = ir.Shape(tensor.shape.numpy())
            value.const_value = ir.ExternalTensor(
                library, 0, tensor.nbytes, dtype, shape=shape, name=name
            )
        program.model.graph.register_initializer(value)
    return lent


def _tensor(value: Any) -> ir.TensorProtocol:
    """Copy a result of the engine."""
    if not value.is_tensor():
        raise TypeError("it computes a sequence or an optional value")
    dtype, shape = ir.DataType(value.element_type()), ir.Shape(value.shape())
    if dtype == ir.DataType.STRING:
        texts = [text.encode() for text in value.numpy().reshape(-1)]
        return ir.StringTensor(texts, shape=shape)
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    data = np.frombuffer(raw, dtype=np.uint8)
    if dtype.bitwidth < 8:
        return ir.PackedTensor(data, dtype, shape=shape)
    return ir.Tensor(data.view(dtype.numpy()).reshape(shape.numpy()), dtype=dtype)
