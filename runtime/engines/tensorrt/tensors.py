"""The inputs and outputs of a plan, which must be those of the model's signature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.artifact.signature import Signature
from leptonc.runtime.errors import EngineError

_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class EngineTensor:
    """An input or output as the engine has it.

    Attributes:
        name: As in the signature.
        is_input: Or an output.
        dtype: NumPy's.
        on_host: The engine reads or writes it in the host's memory: sizes, not data.
    """

    name: str
    is_input: bool
    dtype: np.dtype[np.generic]
    on_host: bool


def read_tensors(
    engine: Any, opened: Any, signature: Signature, where: str
) -> tuple[EngineTensor, ...]:
    """Return the plan's inputs and outputs, which must be those of the signature.

    Raises:
        EngineError: Names or types differ.
    """
    wanted = {(spec.name, True): spec.dtype for spec in signature.inputs}
    wanted.update({(spec.name, False): spec.dtype for spec in signature.outputs})
    found = []
    for index in range(opened.num_io_tensors):
        name = opened.get_tensor_name(index)
        is_input = opened.get_tensor_mode(name) == engine.TensorIOMode.INPUT
        dtype = _TYPES.get(opened.get_tensor_dtype(name).name, "")
        if wanted.pop((name, is_input), None) != dtype:
            kind = "input" if is_input else "output"
            raise EngineError(
                f"the plan's {kind} {name!r} of type {opened.get_tensor_dtype(name).name} "
                "is not in the manifest's signature",
                where=where,
                fix="compile the model again",
            )
        on_host = opened.get_tensor_location(name) == engine.TensorLocation.HOST
        storage: np.dtype[np.generic] = ELEMENT_TYPES[dtype].storage
        found.append(EngineTensor(name, is_input, storage, on_host))
    if wanted:
        name, _ = next(iter(wanted))
        raise EngineError(
            f"the plan lacks {name!r} of the manifest's signature",
            where=where,
            fix="compile the model again",
        )
    return tuple(found)
