"""PyTorch module -> onnx-ir graph, with the user's names on inputs, outputs and dimensions.

The export runs under names that cannot collide and the interface is renamed afterwards: the
exporter names inner values after operators, without a check against the names of outputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from leptonc.compiler.errors import (
    BakedDimensionError,
    ExportError,
    ExportUnsupportedError,
)
from leptonc.compiler.export.trace import trace
from leptonc.compiler.sources.dimensions import DynamicAxes
from leptonc.compiler.sources.source import Source
from leptonc.compiler.sources.user_code import line_of_error, line_of_trace
from leptonc.passes.pipeline import LINE_KEY

DEFAULT_OPSET = 20
_TRACE_KEY = "pkg.torch.onnx.stack_trace"
_MISSING = re.compile(
    r"No (?:ONNX function|decompositions?)[^<]*(?:<OpOverload\(op=')?([\w.]+\.[\w.]+)"
)
_SYMBOL = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class ExportedGraph:
    """A graph and what is needed to compare it with the module value by value.

    Attributes:
        model: The graph, with weights that still live in the module's tensors.
        program: The decomposed program that the graph was translated from.
        renamed: Graph value name by the program's node name, where the two differ.
    """

    model: ir.Model
    program: torch.export.ExportedProgram | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)


def export(source: Source, output_names: list[str], *, opset: int = DEFAULT_OPSET) -> ExportedGraph:
    """Export `source.program`, or pass an ONNX source's graph through.

    Args:
        source: The model.
        output_names: The names of the outputs in the order of the module's own.
        opset: The ONNX operator set to write.

    Raises:
        ExportError: torch.export refuses the module; the error names the user's line.
        BakedDimensionError: A dimension declared dynamic became a constant.
        ExportUnsupportedError: An operator has no ONNX form.
    """
    if source.graph is not None:
        return ExportedGraph(source.graph)
    shared = [name for name in output_names if name in source.inputs]
    if shared:
        raise ExportError(
            f"an input and an output of the module are both named {shared[0]!r}",
            where=source.name,
            fix="give the output another key in the dict that forward() returns",
        )
    program = source.program
    if isinstance(program, torch.nn.Module):
        program = trace(program, source)
    if program is None:
        raise ExportError("the source holds neither a module nor a graph", where=source.name)
    onnx_program = _translate(program, opset, source.user_code)
    model = onnx_program.model
    renamed = _name_interface(model, list(source.inputs), output_names)
    _name_dimensions(model, source.axes)
    _strip_metadata(model, source.user_code)
    _own_layout(model)
    return ExportedGraph(model, onnx_program.exported_program, renamed)


def _translate(
    program: torch.export.ExportedProgram, opset: int, user_code: Path | None
) -> torch.onnx.ONNXProgram:
    try:
        # With gradients, attention would be decomposed into the form that training needs, whose
        # result lies in memory in an order that the module's own reshape does not fit.
        with torch.no_grad():
            onnx_program = torch.onnx.export(
                program, dynamo=True, opset_version=opset, verbose=False
            )
    except Exception as error:
        text = _whole_text(error)
        missing = _MISSING.search(text)
        if missing:
            raise ExportUnsupportedError(
                f"PyTorch's exporter has no ONNX form of {missing[1]}",
                where=_line_of_operator(program, missing[1], user_code),
                fix="write that line with other operators",
            ) from error
        first = next((line for line in text.splitlines() if line.strip()), "")
        raise ExportError(
            f"the ONNX exporter failed: {first.strip()}",
            where=line_of_error(error, user_code),
            fix="--debug shows PyTorch's report",
        ) from error
    if onnx_program is None:
        raise ExportError("the ONNX exporter returned nothing", fix="--debug shows its report")
    written = onnx_program.model.opset_imports.get("", 0)
    if written != opset:
        raise ExportUnsupportedError(
            f"the exporter wrote opset {written}, not {opset}: it has no conversion for this model",
            fix=f"compile with --opset {written}",
        )
    return onnx_program


def _whole_text(error: BaseException) -> str:
    parts: list[str] = []
    pending: BaseException | None = error
    while pending is not None:
        parts.append(str(pending))
        pending = pending.__cause__ or pending.__context__
    return "\n".join(reversed(parts))


def _line_of_operator(
    program: torch.export.ExportedProgram, operator: str, user_code: Path | None
) -> str | None:
    short = operator.removeprefix("torch.ops.").replace("::", ".")
    for node in program.graph.nodes:
        if short in str(node.target) and node.meta.get("stack_trace"):
            return line_of_trace(node.meta["stack_trace"], user_code)
    return None


def _name_interface(model: ir.Model, inputs: list[str], outputs: list[str]) -> dict[str, str]:
    """Give inputs and outputs the user's names; return what inner values were renamed to."""
    graph = model.graph
    if len(graph.inputs) != len(inputs) or len(graph.outputs) != len(outputs):
        raise ExportError(
            f"the exported graph has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, "
            f"but the module has {len(inputs)} and {len(outputs)}",
            where=f"inputs {inputs}, outputs {outputs}",
            fix="every example input must be used by forward()",
        )
    _detach_outputs(graph)
    values = {str(value.name): value for value in _all_values(graph)}
    wanted = {*inputs, *outputs}
    interface = {id(value) for value in (*graph.inputs, *graph.outputs)}
    renamed: dict[str, str] = {}
    for name in sorted(wanted & values.keys()):
        value = values[name]
        if id(value) in interface:
            continue
        fresh = _fresh(f"{name}_inner", values.keys() | wanted)
        values[fresh] = value
        value.name = renamed[name] = fresh
    # Two steps, because one output's old name may be another's new one.
    pairs = list(zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True))
    originals = [str(value.name) for value, _ in pairs]
    for index, (value, _) in enumerate(pairs):
        value.name = f"leptonc_interface_{index}"
    for (value, name), original in zip(pairs, originals, strict=True):
        value.name = name
        renamed[original] = name
    return {old: new for old, new in renamed.items() if old != new}


def _detach_outputs(graph: ir.Graph) -> None:
    """Give an output its own value where it is an input, a weight or another output too."""
    taken = {id(value) for value in graph.inputs} | {
        id(value) for value in graph.initializers.values()
    }
    for index, value in enumerate(graph.outputs):
        if id(value) not in taken:
            taken.add(id(value))
            continue
        copy = ir.Value(name=f"leptonc_copy_{index}", shape=value.shape, type=value.type)
        graph.append(ir.Node("", "Identity", inputs=[value], outputs=[copy], name=copy.name))
        graph.outputs[index] = copy
        taken.add(id(copy))


def _all_values(graph: ir.Graph) -> list[ir.Value]:
    values: list[ir.Value] = [*graph.inputs, *graph.initializers.values()]
    for node in graph.all_nodes():
        values.extend(node.outputs)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                body = attribute.as_graph()
                values.extend((*body.inputs, *body.initializers.values()))
    return values


def _fresh(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _name_dimensions(model: ir.Model, axes: DynamicAxes) -> None:
    """Replace the exporter's symbols (`s77`) by the user's names, everywhere."""
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        for axis, dim in axes.get(str(value.name), {}).items():
            size = value.shape[axis] if value.shape is not None else None
            if isinstance(size, int):
                raise BakedDimensionError(
                    f"dimension {dim.name!r} of input {value.name!r} is declared dynamic, but "
                    f"the exporter fixed it to {size}",
                    where=f"input {value.name!r}, axis {axis}",
                    fix=f"leave {dim.name!r} out of dynamic_shapes(), or make the module use "
                    "x.shape[axis] instead of a number",
                )
            if size is not None and size.value:
                names[size.value] = dim.name
    for value in _all_values(model.graph):
        if value.shape is None or all(isinstance(size, int) for size in value.shape):
            continue
        value.shape = ir.Shape(
            [
                size if isinstance(size, int) else _rename_symbols(size.value, names)
                for size in value.shape
            ]
        )


def _rename_symbols(expression: str | None, names: Mapping[str, str]) -> str | None:
    if expression is None:
        return None
    return _SYMBOL.sub(lambda match: names.get(match[0], match[0]), expression)


def _own_layout(model: ir.Model) -> None:
    """Store transposed weights in their own order, once.

    The exporter leaves them as transposed views of the module's tensors, which every later
    reader would have to copy again, element by element.
    """
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, ir.Tensor):
            continue
        array = tensor.numpy()
        if not array.flags.c_contiguous:
            value.const_value = ir.Tensor(
                np.array(array, order="C"), dtype=tensor.dtype, name=tensor.name
            )


def _strip_metadata(model: ir.Model, user_code: Path | None) -> None:
    """Drop the exporter's notes, keeping on each node only the user's line for messages."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.producer_name, model.producer_version, model.doc_string = None, None, None
    for value in _all_values(model.graph):
        value.metadata_props.clear()
    for node in model.graph.all_nodes():
        trace = node.metadata_props.get(_TRACE_KEY)
        node.metadata_props.clear()
        line = line_of_trace(trace, user_code) if trace else None
        if line:
            node.metadata_props[LINE_KEY] = line
