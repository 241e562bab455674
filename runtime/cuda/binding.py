"""Bound runs on arrays that lie on the GPU already: of torch, CuPy, or another library."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.artifact.signature import Signature, TensorSpec
from leptonc.runtime.cuda.dlpack import CUDA, DeviceArray, device_array
from leptonc.runtime.errors import InputError
from leptonc.runtime.inputs import Array, check_inputs, check_names, check_shape

# DLPack: share the address now; what has to come first is waited for by each run.
_NO_ORDER = -1


class BoundRun(Protocol):
    """What an engine made of bound arrays."""

    @property
    def stream(self) -> int:
        """The stream of its runs."""
        ...

    def run(self) -> None:
        """Run once and wait."""
        ...


class DeviceEngine(Protocol):
    """An engine that can run on arrays of others on its GPU."""

    @property
    def device(self) -> int:
        """The number of the GPU."""
        ...

    def bind(
        self,
        inputs: Mapping[str, Array | DeviceArray],
        outputs: Mapping[str, Array | DeviceArray],
    ) -> BoundRun:
        """Bind the arrays where they are."""
        ...


class DeviceBinding:
    """Arrays bound to a session, some of them on its GPU; made by `Session.bind`.

    Each run waits for the work that the arrays' owners have queued on them, and returns when the
    outputs are written. One binding serves one thread at a time.

    Attributes:
        inputs: The arrays that were bound, by name: the very objects that were given.
        outputs: The arrays that each run fills.
    """

    def __init__(
        self,
        engine: DeviceEngine,
        signature: Signature,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
    ) -> None:
        """Bind arrays of the host or of the GPU, in any mixture.

        Raises:
            InputError: A name, type or shape that the model does not take or give; an array that
                is not contiguous, or lies on another GPU.
        """
        check_names(signature, inputs)
        taken, sizes = _take_inputs(signature, inputs, engine.device)
        names = [spec.name for spec in signature.outputs]
        unknown = [name for name in outputs if name not in names]
        if unknown:
            raise InputError(
                f"there is no output {unknown[0]!r}", fix=f"the model gives {', '.join(names)}"
            )
        filled = {
            spec.name: _take_output(spec, sizes, outputs.get(spec.name), engine.device)
            for spec in signature.outputs
        }
        self._bound = engine.bind(taken, filled)
        self.inputs: Mapping[str, Any] = MappingProxyType(dict(inputs))
        self.outputs: Mapping[str, Any] = MappingProxyType(
            {name: outputs.get(name, filled[name]) for name in names}
        )
        self._shared = [
            (name, value, address)
            for name, value, address in (
                (name, value, _address(taken.get(name, filled.get(name))))
                for name, value in (*inputs.items(), *outputs.items())
            )
            if address is not None
        ]

    def run(self) -> Mapping[str, Any]:
        """Run on the values now in `inputs`; return `outputs`.

        Raises:
            InputError: An array was moved since it was bound.
            EngineError: The engine failed.
        """
        for name, value, address in self._shared:
            if device_array(name, value, self._bound.stream).address != address:
                raise InputError(
                    f"the array for {name!r} lies at another address than when it was bound",
                    where=name,
                    fix="write into the bound array, or bind again",
                )
        self._bound.run()
        return self.outputs


def _address(array: Array | DeviceArray | None) -> int | None:
    return array.address if isinstance(array, DeviceArray) else None


def on_device(value: object) -> bool:
    """Return whether `value` is an array of another library on an NVIDIA GPU."""
    if isinstance(value, np.ndarray):
        return False
    where = getattr(value, "__dlpack_device__", None)
    return where is not None and int(where()[0]) == CUDA


def _take_inputs(
    signature: Signature, given: Mapping[str, Any], device: int
) -> tuple[dict[str, Array | DeviceArray], dict[str, int]]:
    sizes: dict[str, tuple[int, str]] = {}
    taken: dict[str, Array | DeviceArray] = {}
    for spec in signature.inputs:
        value = given[spec.name]
        if on_device(value):
            array: Array | DeviceArray = _shared(spec, value, device)
        else:
            checked, _ = check_inputs(Signature((spec,), signature.outputs), {spec.name: value})
            array = checked[spec.name]
            if array is not value or array.dtype.kind == "O":
                raise InputError(
                    f"the input {spec.name!r} cannot be bound: it is not contiguous, or is text",
                    where=spec.name,
                    fix=f"bind numpy.ascontiguousarray({spec.name}), and write into that array",
                )
        check_shape(spec, array.shape, sizes)
        taken[spec.name] = array
    return taken, {name: size for name, (size, _) in sizes.items()}


def _shared(spec: TensorSpec, value: Any, device: int) -> DeviceArray:
    number = int(value.__dlpack_device__()[1])
    if number != device:
        raise InputError(
            f"the array for {spec.name!r} lies on GPU {number}; the session is on {device}",
            where=spec.name,
            fix=f"copy it to GPU {device}",
        )
    array = device_array(spec.name, value, _NO_ORDER)
    if array.dtype != spec.dtype:
        raise InputError(
            f"the array for {spec.name!r} has dtype {array.dtype}; {spec.dtype} is needed",
            where=str(spec),
            fix="convert it, if that keeps its meaning",
        )
    return array


def _take_output(
    spec: TensorSpec, sizes: Mapping[str, int], value: Any, device: int
) -> Array | DeviceArray:
    shape = tuple(dim if isinstance(dim, int) else sizes.get(dim.name) for dim in spec.shape)
    if value is None:
        known = tuple(size for size in shape if size is not None)
        if len(known) < len(shape):
            raise InputError(
                f"the shape of output {spec.name!r} does not follow from the inputs",
                where=str(spec),
                fix=f"bring an array for it: bind(inputs, {{{spec.name!r}: ...}})",
            )
        return np.empty(known, ELEMENT_TYPES[spec.dtype].storage)
    array = _shared(spec, value, device) if on_device(value) else value
    usable = isinstance(array, DeviceArray) or (
        isinstance(array, np.ndarray)
        and array.dtype == ELEMENT_TYPES[spec.dtype].storage
        and array.flags.carray
    )
    fits = (
        usable
        and len(array.shape) == len(shape)
        and all(wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=True))
    )
    if not fits:
        raise InputError(
            f"the array for output {spec.name!r} does not fit: "
            f"{getattr(array, 'dtype', type(array).__name__)} {list(getattr(array, 'shape', ()))}",
            where=str(spec),
            fix="give a writable, contiguous array of this dtype and shape",
        )
    found: Array | DeviceArray = array
    return found
