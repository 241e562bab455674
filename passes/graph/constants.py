"""Which values are constants, and what small constants hold."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

# Shapes, axes and permutations are shorter than this many elements.
_SMALL = 1024

_INTEGERS = frozenset(
    {
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    }
)


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor that `value` always holds, or None.

    An initializer that is an input of its graph as well is only a default, and no constant.
    """
    if value is None:
        return None
    if value.is_initializer():
        return None if value.is_graph_input() else value.const_value
    producer = value.producer()
    return None if producer is None else constant_node_tensor(producer)


def constant_node_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """Return the tensor of a Constant node.

    `value_float` and its kin, spelled as attributes, become tensors here. None for other nodes,
    for sparse constants, and for constants that depend on the attributes of a function call.
    """
    if node.op_type != "Constant" or node.domain or len(node.attributes) != 1:
        return None
    attribute = next(iter(node.attributes.values()))
    if attribute.is_ref():
        return None
    if attribute.name == "value" and attribute.type == ir.AttributeType.TENSOR:
        return attribute.as_tensor()
    if attribute.name in {"value_int", "value_ints"}:
        return ir.Tensor(np.array(attribute.value, dtype=np.int64))
    if attribute.name in {"value_float", "value_floats"}:
        return ir.Tensor(np.array(attribute.value, dtype=np.float32))
    if attribute.name == "value_string":
        return ir.StringTensor([_encoded(attribute.value)], shape=ir.Shape([]))
    if attribute.name == "value_strings":
        texts = [_encoded(text) for text in attribute.value]
        return ir.StringTensor(texts, shape=ir.Shape([len(texts)]))
    return None


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def constant_ints(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return the elements of a small constant of an integer type, in order."""
    tensor = constant(value)
    if tensor is None or tensor.dtype not in _INTEGERS or tensor.size > _SMALL:
        return None
    return tuple(int(element) for element in tensor.numpy().reshape(-1))


def constant_bool(value: ir.Value | None) -> bool | None:
    """Return the single element of a constant of type bool."""
    tensor = constant(value)
    if tensor is None or tensor.dtype != ir.DataType.BOOL or tensor.size != 1:
        return None
    return bool(tensor.numpy().reshape(-1)[0])
