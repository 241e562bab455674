"""Runs with no copies: the same arrays in, the same arrays out, every time."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.artifact.signature import Signature, TensorSpec
from leptonc.runtime.errors import InputError
from leptonc.runtime.inputs import Array, check_inputs

if TYPE_CHECKING:
    from leptonc.runtime.engines.base import Engine


class Binding:
    """Arrays bound to a session; made by `Session.bind`.

    Write new values into the arrays that were bound (`binding.inputs["x"][...] = value`), call
    `run()`, and read `binding.outputs`. Each run overwrites the outputs; copy what must stay.
    One binding serves one thread at a time; make one for each thread.

    Attributes:
        inputs: The arrays that were bound, by name.
        outputs: The arrays that each run fills, by name.
    """

    def __init__(
        self,
        engine: Engine,
        signature: Signature,
        given: Mapping[str, object],
        outputs: Mapping[str, Array],
    ) -> None:
        """Bind arrays; `outputs` holds those that the caller brings.

        Raises:
            InputError: As for a call; or an array is not contiguous, is text, or an output's
                shape does not follow from the inputs and no array was given for it.
        """
        arrays, sizes = check_inputs(signature, given)
        for name, array in arrays.items():
            if array is not given[name]:
                raise InputError(
                    f"the input {name!r} cannot be bound: it is not contiguous, or is text",
                    where=name,
                    fix=f"bind numpy.ascontiguousarray({name}), and write into that array",
                )
            _refuse_text(name, array)
        unknown = [name for name in outputs if name not in {s.name for s in signature.outputs}]
        if unknown:
            raise InputError(
                f"there is no output {unknown[0]!r}",
                fix=f"the model gives {', '.join(spec.name for spec in signature.outputs)}",
            )
        filled = {s.name: _output(s, sizes, outputs.get(s.name)) for s in signature.outputs}
        self._engine = engine
        self._arrays = arrays
        self._binding = engine.bind(arrays, filled)
        self.inputs: Mapping[str, Array] = MappingProxyType(arrays)
        self.outputs: Mapping[str, Array] = MappingProxyType(filled)

    def run(self) -> Mapping[str, Array]:
        """Run on the values now in `inputs`; return `outputs`, the same arrays every time.

        Raises:
            EngineError: The engine failed.
        """
        self._engine.run_bound(self._binding, self._arrays)
        return self.outputs


def _refuse_text(name: str, array: Array) -> None:
    if array.dtype.kind == "O":
        raise InputError(
            f"{name!r} cannot be bound: text has no memory of a fixed size",
            where=name,
            fix="call the session with it instead",
        )


def _output(spec: TensorSpec, sizes: Mapping[str, int], given: Array | None) -> Array:
    if given is not None:
        return _check_output(spec, sizes, given)
    unknown = [dim.name for dim in spec.shape if not isinstance(dim, int) and dim.name not in sizes]
    if unknown:
        raise InputError(
            f"the shape of output {spec.name!r} does not follow from the inputs: "
            f"no input has the dimension {unknown[0]!r}",
            where=str(spec),
            fix=f"bring an array: session.bind(inputs, outputs={{{spec.name!r}: numpy.empty(...)}})",
        )
    shape = tuple(dim if isinstance(dim, int) else sizes[dim.name] for dim in spec.shape)
    array: Array = np.empty(shape, ELEMENT_TYPES[spec.dtype].storage)
    _refuse_text(spec.name, array)
    return array


def _check_output(spec: TensorSpec, sizes: Mapping[str, int], array: Array) -> Array:
    shape = tuple(dim if isinstance(dim, int) else sizes.get(dim.name) for dim in spec.shape)
    fits = len(shape) == array.ndim and all(
        wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=True)
    )
    usable = array.flags.c_contiguous and array.flags.aligned and array.flags.writeable
    if fits and usable and array.dtype == ELEMENT_TYPES[spec.dtype].storage:
        _refuse_text(spec.name, array)
        return array
    raise InputError(
        f"the array for output {spec.name!r} does not fit: {array.dtype} {list(array.shape)}",
        where=str(spec),
        fix="give a writable, contiguous array of this dtype and shape",
    )
