"""An .onnx file as someone runs it who has nothing but the engine: what artifacts are raced against.

It needs no other package than the engine's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leptonc.runtime.artifact.signature import Dim, Signature, TensorSpec
from leptonc.runtime.engines.ort.library import import_engine
from leptonc.runtime.errors import EngineError, UnsupportedError

# ONNX Runtime's names of tensor types, as NumPy spells them.
_DTYPES: Mapping[str, str] = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(string)": "str",
    **{
        f"tensor({sign}int{bits})": f"{sign}int{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


def open_plain_file(path: Path, threads: int | None) -> tuple[Any, Signature]:
    """Return a session on an .onnx file with the defaults of the engine, and its signature.

    Raises:
        EngineError: ONNX Runtime refuses the file.
        UnsupportedError: An input or output is of a type that NumPy does not have.
    """
    engine = import_engine()
    options = engine.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    try:
        session = engine.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(f"ONNX Runtime cannot load it: {error}", where=str(path)) from error
    signature = Signature(
        tuple(_spec(each, path) for each in session.get_inputs()),
        tuple(_spec(each, path) for each in session.get_outputs()),
    )
    return session, signature


def _spec(node: Any, path: Path) -> TensorSpec:
    if node.type not in _DTYPES:
        raise UnsupportedError(
            f"{node.name!r} has type {node.type}, which NumPy does not have", where=str(path)
        )
    shape = tuple(
        size if isinstance(size, int) else Dim(size or f"{node.name}_dim_{axis}")
        for axis, size in enumerate(node.shape)
    )
    return TensorSpec(node.name, _DTYPES[node.type], shape)
