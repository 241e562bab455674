"""The hand-written protobuf says what onnx's own writer would say."""

from __future__ import annotations

import onnx
import pytest

from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.engines.ort.declarations import Declaration, declare_weights


def weight(name: str, dtype: str, shape: tuple[int, ...], offset: int = 0) -> Declaration:
    return Declaration(name, dtype, shape, "file.lepton", offset, 4)


def declared(*weights: Declaration) -> list[onnx.TensorProto]:
    return list(onnx.ModelProto.FromString(declare_weights(weights)).graph.initializer)


@pytest.mark.parametrize("dtype", [name for name in ELEMENT_TYPES if name != "str"])
def test_every_type_has_the_number_that_onnx_gives_it(dtype: str) -> None:
    [tensor] = declared(weight("w", dtype, (2,)))
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    assert onnx.TensorProto.DataType.Name(tensor.data_type) == names.get(
        dtype, dtype.upper().replace("FLOAT8_", "FLOAT8")
    )


@pytest.mark.parametrize("shape", [(), (0,), (1,), (127,), (128, 1 << 35), (2,) * 32])
def test_shapes_of_every_size_survive(shape: tuple[int, ...]) -> None:
    [tensor] = declared(weight("größe/w.1", "float32", shape, 1 << 62))
    assert tuple(tensor.dims) == shape
    assert tensor.name == "größe/w.1"
    assert tensor.data_location == onnx.TensorProto.EXTERNAL
    assert {entry.key: entry.value for entry in tensor.external_data} == {
        "location": "file.lepton",
        "offset": str(1 << 62),
        "length": "4",
    }


def test_appending_adds_to_what_a_model_has() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x) => (float[2] y)'
        " <float[2] a = {1, 2}> { y = Add(x, a) }"
    )
    both = onnx.ModelProto.FromString(
        model.SerializeToString() + declare_weights([weight("b", "float32", (2,))])
    )
    assert [tensor.name for tensor in both.graph.initializer] == ["a", "b"]
    assert both.graph.node == model.graph.node
    assert both.opset_import == model.opset_import


def test_nothing_to_declare_is_nothing() -> None:
    assert declare_weights([]) == b""
