"""Types and shapes as ONNX's own inference finds them, from what is enforced alone.

The inference works on a protobuf. The one it gets here is a sketch of the model: values are
numbered, large tensors have a shape and no data, and what a file declares of inner values is left
out, except for the element types behind operators that ONNX does not know.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx.shape_inference import InferenceError, infer_shapes

from leptonc.passes.facts.contrib_stand_ins import StandIn, stand_in

Dims = tuple[int | None, ...]

# Tensors up to this many bytes are shown to the inference: they may be shapes.
_SHAPE_BYTES = 1000

# The first IR version in which an initializer need not be an input of the graph as well.
_FREE_INITIALIZERS = 4


def infer_types(
    model: ir.Model,
) -> tuple[dict[ir.Value, ir.DataType], dict[ir.Value, Dims]]:
    """Infer element types and dimensions of the values of the main graph and its subgraphs.

    Returns:
        The element types of tensors, and the dimensions of those whose rank is known.
    """
    sketch = _Sketch(model)
    dtypes: dict[ir.Value, ir.DataType] = {}
    dims: dict[ir.Value, Dims] = {}
    try:
        inferred = infer_shapes(sketch.proto, data_prop=True)
    except (InferenceError, RuntimeError, ValueError):
        # It gives up on the whole model; then nothing is known but what is declared.
        inferred = sketch.proto
    for info in _infos(inferred.graph):
        value = sketch.values.get(info.name)
        if value is None or not info.type.HasField("tensor_type"):
            continue
        tensor = info.type.tensor_type
        if tensor.elem_type:
            dtypes[value] = ir.DataType(tensor.elem_type)
        if tensor.HasField("shape"):
            dims[value] = tuple(
                size.dim_value if size.HasField("dim_value") and size.dim_value >= 0 else None
                for size in tensor.shape.dim
            )
    return dtypes, dims


def _infos(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.value_info
    yield from graph.output
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _infos(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for body in attribute.graphs:
                    yield from _infos(body)


class _Sketch:
    """The protobuf that the inference gets, and whose value each name is."""

    def __init__(self, model: ir.Model) -> None:
        self.values: dict[str, ir.Value] = {}
        self._names: dict[ir.Value, str] = {}
        self.proto = onnx.ModelProto(ir_version=max(model.ir_version, _FREE_INITIALIZERS))
        for domain, version in model.opset_imports.items():
            self.proto.opset_import.add(domain=domain, version=version)
        for function in model.functions.values():
            ir.serde.serialize_function_into(self.proto.functions.add(), function)
        self._draw(model.graph, self.proto.graph, main=True)

    def _name(self, value: ir.Value | None) -> str:
        if value is None or not value.name:
            return ""
        name = self._names.get(value)
        if name is None:
            name = self._names[value] = f"v{len(self._names)}"
            self.values[name] = value
        return name

    def _draw(self, graph: ir.Graph, proto: onnx.GraphProto, *, main: bool) -> None:
        proto.name = "g"
        for value in graph.inputs:
            self._declare(value, proto.input.add(), shape=main)
        for value in graph.initializers.values():
            # The default of an input may be overridden: its elements are not known.
            if value.const_value is not None and not value.is_graph_input():
                self._draw_constant(value, value.const_value, proto, main=main)
        for node in graph:
            self._draw_node(node, proto)
            if node.domain:
                for output in node.outputs:
                    if output.name and output.type is not None:
                        self._declare(output, proto.value_info.add(), shape=False)
        for value in graph.outputs:
            self._declare(value, proto.output.add(), shape=False)

    def _declare(self, value: ir.Value, info: onnx.ValueInfoProto, *, shape: bool) -> None:
        info.name = self._name(value)
        if value.type is not None:
            ir.serde.serialize_type_into(info.type, value.type)
            if shape and value.shape is not None:
                ir.serde.serialize_shape_into(info.type, value.shape)

    def _draw_constant(
        self, value: ir.Value, tensor: ir.TensorProtocol, proto: onnx.GraphProto, *, main: bool
    ) -> None:
        if main and not _is_shown(tensor):
            info = proto.input.add(name=self._name(value))
            info.type.tensor_type.elem_type = tensor.dtype.value
            info.type.tensor_type.shape.SetInParent()
            for size in tensor.shape.numpy():
                info.type.tensor_type.shape.dim.add(dim_value=size)
            return
        # In a body an input more would be one too many.
        _draw_tensor(tensor, proto.initializer.add(), self._name(value))

    def _draw_node(self, node: ir.Node, graph: onnx.GraphProto) -> None:
        guise = stand_in(node)
        if guise is not None:
            for index in guise.outputs:
                if index < len(node.outputs) and node.outputs[index].name:
                    self._draw_guise(node, guise, node.outputs[index], graph.node.add())
            return
        proto = graph.node.add(op_type=node.op_type, domain=node.domain)
        proto.output.extend([self._name(value) for value in node.outputs])
        proto.input.extend([self._name(value) for value in node.inputs])
        if node.overload:
            proto.overload = node.overload
        for attribute in node.attributes.values():
            self._draw_attribute(attribute, proto.attribute.add())

    def _draw_guise(
        self, node: ir.Node, guise: StandIn, output: ir.Value, proto: onnx.NodeProto
    ) -> None:
        proto.op_type = guise.operator
        proto.output.append(self._name(output))
        proto.input.extend([self._name(value) for value in node.inputs[: guise.inputs]])
        for attribute in guise.attributes.values():
            self._draw_attribute(attribute, proto.attribute.add())

    def _draw_attribute(self, attribute: ir.Attr, proto: onnx.AttributeProto) -> None:
        if attribute.is_ref():
            ir.serde.serialize_reference_attribute_into(proto, attribute)
            return
        match attribute.type:
            case ir.AttributeType.GRAPH:
                proto.name, proto.type = attribute.name, onnx.AttributeProto.GRAPH
                self._draw(attribute.as_graph(), proto.g, main=False)
            case ir.AttributeType.GRAPHS:
                proto.name, proto.type = attribute.name, onnx.AttributeProto.GRAPHS
                for body in attribute.as_graphs():
                    self._draw(body, proto.graphs.add(), main=False)
            case ir.AttributeType.TENSOR:
                proto.name, proto.type = attribute.name, onnx.AttributeProto.TENSOR
                _draw_tensor(attribute.as_tensor(), proto.t, "")
            case _:
                ir.serde.serialize_attribute_into(proto, attribute)


def _is_shown(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype == ir.DataType.STRING or tensor.nbytes <= _SHAPE_BYTES


def _draw_tensor(tensor: ir.TensorProtocol, proto: onnx.TensorProto, name: str) -> None:
    """Draw a tensor: a large one with its data elsewhere, where the inference does not look."""
    if _is_shown(tensor):
        ir.serde.serialize_tensor_into(proto, tensor)
    else:
        proto.dims.extend(tensor.shape.numpy())
        proto.data_type = tensor.dtype.value
        proto.data_location = onnx.TensorProto.EXTERNAL
        proto.external_data.add(key="location", value="hidden")
    proto.name = name
