"""Weights as sections: aligned, stored once, in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.backends.base import Payload, PayloadWeight
from leptonc.backends.pack import pack


def weight(name: str, array: np.ndarray, dtype: str | None = None) -> PayloadWeight:
    return PayloadWeight(name, dtype or array.dtype.name, ir.Tensor(array, name=name))


def payload(name: str, *weights: PayloadWeight) -> Payload:
    model = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    return Payload({"name": name, "graph": f"{name}/graph"}, name.encode(), weights, {}, model)


def contents(sections: list[Any]) -> dict[str, bytes]:
    found = {section.name: b"".join(bytes(c) for c in section.chunks()) for section in sections}
    assert {name: len(data) for name, data in found.items()} == {s.name: s.length for s in sections}
    return found


def test_weights_are_aligned_and_in_order() -> None:
    first, second = np.arange(3, dtype=np.float32), np.arange(5, dtype=np.int64)
    sections, [variant] = pack([payload("v", weight("a", first), weight("b", second))])
    data = contents(sections)
    assert list(data) == ["v/graph", "weights"]
    assert data["v/graph"] == b"v"
    assert data["weights"] == first.tobytes().ljust(64, b"\0") + second.tobytes()
    assert variant["weights"] == [
        {
            "name": "a",
            "dtype": "float32",
            "shape": [3],
            "section": "weights",
            "offset": 0,
            "length": 12,
        },
        {
            "name": "b",
            "dtype": "int64",
            "shape": [5],
            "section": "weights",
            "offset": 64,
            "length": 40,
        },
    ]


def test_equal_bytes_are_stored_once_across_names_shapes_types_and_variants() -> None:
    array = np.arange(64, dtype=np.float32)
    sections, variants = pack(
        [
            payload("v", weight("a", array), weight("b", array.reshape(8, 8))),
            payload("u", weight("c", array.view(np.int32)), weight("d", array + 1)),
        ]
    )
    data = contents(sections)
    assert list(data) == ["v/graph", "u/graph", "weights"]
    assert data["weights"] == array.tobytes() + (array + 1).tobytes()
    offsets = [[entry["offset"] for entry in variant["weights"]] for variant in variants]
    assert offsets == [[0, 0], [0, 256]]


def test_without_weights_there_is_no_section_for_them() -> None:
    sections, [variant] = pack([payload("v")])
    assert list(contents(sections)) == ["v/graph"]
    assert variant["weights"] == []


def test_a_tensor_that_is_not_contiguous_is_written_in_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    sections, _ = pack([payload("v", weight("a", array))])
    assert contents(sections)["weights"] == np.arange(6, dtype=np.float32).reshape(2, 3).T.tobytes()


def test_a_lazy_tensor_is_read_in_pieces(tmp_path: Any) -> None:
    data = np.arange(3 << 20, dtype=np.float32)
    (tmp_path / "data").write_bytes(b"x" * 100 + data.tobytes() + b"tail")
    tensor = ir.ExternalTensor(
        "data",
        100,
        data.nbytes,
        ir.DataType.FLOAT,
        shape=ir.Shape([3 << 20]),
        name="a",
        base_dir=tmp_path,
    )
    lazy = PayloadWeight("a", "float32", tensor)
    pieces = [len(piece) for piece in lazy.chunks()]
    assert pieces == [4 << 20] * 3
    assert b"".join(lazy.chunks()) == data.tobytes()
