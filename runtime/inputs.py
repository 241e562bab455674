"""Checks arrays against a signature before the engine sees them.

Every refusal names the input, what it is, what it should be, and the line that fixes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import numpy as np

from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.artifact.signature import Dim, Signature, TensorSpec
from leptonc.runtime.errors import InputError

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
Arrays = dict[str, Array]

# Combinations of shapes that a session remembers as right.
REMEMBERED_SHAPES = 1024


class InputGate:
    """The checks of one signature, for calls that come again and again.

    What was accepted once is remembered by its shapes, so that the next call of that kind
    passes in well under a microsecond; whatever is new is left to `check_inputs`.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        # Text is an array of objects, of which each one has to be looked at: no plan fits it.
        self._plan = tuple(
            (spec.name, ELEMENT_TYPES[spec.dtype].storage if spec.dtype != "str" else None)
            for spec in signature.inputs
        )
        self._accepted: set[tuple[tuple[int, ...], ...]] = set()

    def check(self, given: Mapping[str, object]) -> Mapping[str, Array]:
        """Return the arrays to hand to the engine.

        Raises:
            InputError: As `check_inputs` does.
        """
        shapes: list[tuple[int, ...]] = []
        if type(given) is dict and len(given) == len(self._plan):
            for name, dtype in self._plan:
                array = given.get(name)
                # Builtin dtypes are singletons, and `carray` is contiguous, aligned and writable
                # in one question; what answers no gets the second look.
                if type(array) is np.ndarray and array.dtype is dtype and array.flags.carray:
                    shapes.append(array.shape)
            key = tuple(shapes)
            if key in self._accepted:
                return given
        arrays, _ = check_inputs(self._signature, given)
        if shapes and len(shapes) == len(self._plan) and len(self._accepted) < REMEMBERED_SHAPES:
            self._accepted.add(tuple(shapes))
        return arrays


def check_inputs(
    signature: Signature, given: Mapping[str, object]
) -> tuple[Arrays, dict[str, int]]:
    """Return the arrays in the order of the signature, and the size of each named dimension.

    The arrays are C-contiguous, aligned and in native byte order: those given, or copies of
    those that were not contiguous.

    Raises:
        InputError: A name, type, rank or size that the model does not take.
    """
    check_names(signature, given)
    arrays: Arrays = {}
    sizes: dict[str, tuple[int, str]] = {}
    for spec in signature.inputs:
        array = _check_type(spec, given[spec.name])
        check_shape(spec, array.shape, sizes)
        arrays[spec.name] = _contiguous(array)
    return arrays, {name: size for name, (size, _) in sizes.items()}


def _contiguous(array: Array) -> Array:
    # np.ascontiguousarray would turn an array of rank 0 into one of rank 1.
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return array.copy(order="C")


def check_names(signature: Signature, given: Mapping[str, object]) -> None:
    """Refuse names that the signature lacks, and missing ones.

    Raises:
        InputError: Names the first of them, and what is close to it.
    """
    expected = [spec.name for spec in signature.inputs]
    unknown = [name for name in given if name not in expected]
    missing = [name for name in expected if name not in given]
    if not unknown and not missing:
        return
    takes = f"the model takes {', '.join(expected) or 'no inputs'}"
    if not unknown:
        raise InputError(
            f"the input {missing[0]!r} is missing",
            where=", ".join(map(str, given)) + " were given" if given else "no input was given",
            fix=takes,
        )
    from difflib import get_close_matches

    close = get_close_matches(str(unknown[0]), missing or expected, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InputError(
        f"there is no input {unknown[0]!r}",
        where="; ".join(map(str, signature.inputs)) or None,
        fix=hint + takes,
    )


def _check_type(spec: TensorSpec, value: object) -> Array:
    if not isinstance(value, np.ndarray):
        dtype = "object" if spec.dtype == "str" else spec.dtype
        raise InputError(
            f"the input {spec.name!r} is a {type(value).__module__}.{type(value).__name__}, "
            "not a NumPy array",
            where=str(spec),
            fix=f"{spec.name}=numpy.asarray({spec.name}, dtype={dtype!r})",
        )
    if spec.dtype == "str":
        return _check_text(spec, value)
    expected = ELEMENT_TYPES[spec.dtype].storage
    if value.dtype == expected:
        return value
    if value.dtype.newbyteorder("=") == expected:
        raise InputError(
            f"the input {spec.name!r} has the other byte order ({value.dtype.str}); "
            f"{expected.str} is needed",
            where=str(spec),
            fix=f"{spec.name}={spec.name}.astype({spec.dtype!r})",
        )
    raise InputError(
        f"the input {spec.name!r} has dtype {value.dtype}; {spec.dtype} is needed",
        where=str(spec),
        fix=f"{spec.name}={spec.name}.astype({spec.dtype!r}), if that keeps its meaning",
    )


def _check_text(spec: TensorSpec, value: Array) -> Array:
    if value.dtype.kind == "U":
        return value.astype(object)
    if value.dtype.kind == "O" and all(isinstance(item, str) for item in value.flat):
        return value
    raise InputError(
        f"the input {spec.name!r} has dtype {value.dtype}; an array of str is needed",
        where=str(spec),
        fix=f"{spec.name}=numpy.array([...], dtype=object), with str in it",
    )


def check_shape(
    spec: TensorSpec, shape: tuple[int, ...], sizes: dict[str, tuple[int, str]]
) -> None:
    """Refuse a shape that the signature does not admit.

    Args:
        spec: The input.
        shape: What was given.
        sizes: The size of each named dimension and where it was first seen; added to.

    Raises:
        InputError: The rank, or the size in an axis.
    """
    if len(shape) != len(spec.shape):
        _refuse(
            spec, f"has rank {len(shape)}, shape {list(shape)}; rank {len(spec.shape)} is needed"
        )
    for axis, (size, dim) in enumerate(zip(shape, spec.shape, strict=True)):
        place = f"axis {axis} of input {spec.name!r}"
        if isinstance(dim, int):
            if size != dim:
                _refuse(spec, f"has size {size} in axis {axis}; it is fixed at {dim}")
            continue
        if not dim.admits(size):
            _refuse(spec, f"has {_bound_text(dim, size)} (axis {axis})")
        earlier, first = sizes.setdefault(dim.name, (size, place))
        if earlier != size:
            raise InputError(
                f"the dimension {dim.name!r} is {earlier} in {first} but {size} in {place}",
                where=str(spec),
                fix=f"give both the same size of {dim.name!r}",
            )


def _bound_text(dim: Dim, size: int) -> str:
    if size < dim.min:
        return f"size {size} in the dimension {dim.name!r}, below its lower bound {dim.min}"
    return f"size {size} in the dimension {dim.name!r}, above its upper bound {dim.max}"


def _refuse(spec: TensorSpec, what: str) -> NoReturn:
    raise InputError(
        f"the input {spec.name!r} {what}",
        where=str(spec),
        fix="reshape, pad or cut the array, or compile the model with other bounds",
    )
