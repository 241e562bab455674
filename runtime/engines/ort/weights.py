"""The ways in which mapped weights reach ONNX Runtime.

1. As arrays over the mapping, which the engine uses in place. Always, unless its optimiser
   runs at load: then its optimiser does not see these arrays and would read the declared
   place of the weight instead (measured on 1.31).
2. As a place in the artifact, by file name, which the engine maps again. Only if the name
   still means the file that was verified.
3. As the bytes of a file that has no name, which the engine copies: for artifacts that are
   still being written, and for files that were replaced or removed since.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import Artifact
from leptonc.runtime.engines.ort.declarations import Declaration, declaration, declare_weights
from leptonc.runtime.inputs import Array

_FOLDER = "session.model_external_initializers_file_folder_path"
# No file is this long: an engine that reads a weight from its declared place fails at once.
_OUT_OF_REACH = 1 << 62


@dataclass(frozen=True)
class SharedWeight:
    """A weight in memory that the engine uses in place.

    The engine keeps bare pointers to `array` and `value`: they must outlive the session.

    Attributes:
        dtype: A key of `ELEMENT_TYPES`.
        array: Its values, in the storage type.
        value: The engine's view of the array.
    """

    dtype: str
    array: Array
    value: Any


def share_weight(engine: Any, dtype: str, array: Array) -> SharedWeight:
    """Return an array of the storage type of `dtype`, ready to be given to the engine."""
    element = ELEMENT_TYPES[dtype]
    if element.native:
        return SharedWeight(dtype, array, engine.OrtValue.ortvalue_from_numpy(array))
    make = engine.OrtValue.ortvalue_from_numpy_with_onnx_type
    return SharedWeight(dtype, array, make(array, element.onnx))


def give_arrays(engine: Any, options: Any, weights: Mapping[str, SharedWeight]) -> bytes:
    """Let the engine use arrays in place; return the declarations to append to the graph.

    Args:
        engine: The onnxruntime module.
        options: Of the session to be opened, with its optimiser off.
        weights: By name.
    """
    # The engine insists that the declared file exists, and never opens it. Its own library is
    # one that surely does.
    folder, location = os.path.split(engine.capi.onnxruntime_pybind11_state.__file__)
    options.add_session_config_entry(_FOLDER, folder)
    for name, weight in weights.items():
        options.add_initializer(name, weight.value)
    return declare_weights(
        (
            Declaration(name, w.dtype, w.array.shape, location, _OUT_OF_REACH, w.array.nbytes)
            for name, w in weights.items()
        )
    )


def mapped_weights(engine: Any, artifact: Artifact, variant: Variant) -> dict[str, SharedWeight]:
    """Return each weight as an array over the mapped file."""
    weights: dict[str, SharedWeight] = {}
    for weight in variant.weights:
        view = artifact.view(weight.section, weight.offset, weight.length)
        storage = ELEMENT_TYPES[weight.dtype].storage
        array: Array = np.ndarray(weight.shape, storage, buffer=view)
        weights[weight.name] = share_weight(engine, weight.dtype, array)
    return weights


def give_file(options: Any, artifact: Artifact, variant: Variant) -> tuple[bytes, object]:
    """Let the engine and its optimiser read the weights from the file, or from its bytes.

    Returns:
        The declarations to append to the graph, and what must outlive the session.
    """
    path = artifact.current_path()
    if path is None:
        return _give_bytes(options, artifact, variant)
    folder, location = os.path.split(path)
    options.add_session_config_entry(_FOLDER, folder)
    return declare_weights(
        declaration(w, location, artifact.sections[w.section].offset) for w in variant.weights
    ), None


def _give_bytes(options: Any, artifact: Artifact, variant: Variant) -> tuple[bytes, object]:
    names = sorted({weight.section for weight in variant.weights})
    views = [artifact.view(name) for name in names]
    options.add_external_initializers_from_files_in_memory(names, views, [len(v) for v in views])
    return declare_weights(declaration(w, w.section, 0) for w in variant.weights), views
