"""What can be raced: artifacts on the runtime, .onnx files on plain ONNX Runtime.

Both become a `Contender`: a signature and a callable. Inputs come from an .npz file or are
made from the signature, which is enough to measure speed and says nothing about quality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leptonc.compiler.running.plain_file import open_plain_file
from leptonc.runtime import load
from leptonc.runtime.arrays import Arrays
from leptonc.runtime.artifact.signature import Dim, Signature
from leptonc.runtime.errors import (
    InputError,
)

# Sizes of dynamic dimensions that nobody gave: one item, of a middling length.
FIRST_AXIS = 1
OTHER_AXES = 64


@dataclass(frozen=True)
class Contender:
    """A loaded model.

    Attributes:
        path: The file.
        kind: `artifact` or `onnx`.
        signature: Its inputs and outputs.
        run: Takes arrays by input name, computes every output.
        close: Frees the engine's memory.
    """

    path: Path
    kind: str
    signature: Signature
    run: Callable[[Mapping[str, np.ndarray]], object]
    close: Callable[[], None]


def open_contender(path: Path, threads: int | None) -> Contender:
    """Load a file with `threads` engine threads (None: the engine's own choice).

    Raises:
        InputError: There is no such file, or it is neither .lepton nor .onnx.
        LeptonError: What the runtime or the engine has against it.
    """
    if path.suffix not in {".lepton", ".onnx"}:
        raise InputError(
            "only .lepton artifacts and .onnx files can be measured",
            where=str(path),
            fix="compile the model first: leptonc compile MODEL -o model.lepton",
        )
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    return _open_onnx(path, threads) if path.suffix == ".onnx" else _open_artifact(path, threads)


def _open_artifact(path: Path, threads: int | None) -> Contender:
    session = load(path, threads=threads, eager=True)
    return Contender(path, "artifact", session.signature, session.run, session.close)


def _open_onnx(path: Path, threads: int | None) -> Contender:
    session, signature = open_plain_file(path, threads)

    def run(arrays: Mapping[str, np.ndarray]) -> object:
        return session.run(None, dict(arrays))

    def close() -> None:
        nonlocal session
        session = None

    return Contender(path, "onnx", signature, run, close)


def synthesize(signature: Signature, sizes: Mapping[str, int], seed: int) -> Arrays:
    """Make inputs that fit `signature`: for measuring speed only.

    Floats are drawn from a standard normal distribution. Integers and booleans are all one,
    which is a valid token, a valid segment and a mask that hides nothing. Text is "a".

    Args:
        signature: The model's.
        sizes: Dynamic dimensions by name; those left out get 1 on the first axis and 64 on
            the others, moved into their bounds.
        seed: Of the generator.

    Raises:
        InputError: A name in `sizes` that no input has, or a size out of bounds.
    """
    dims = dynamic_dims(signature)
    unknown = sorted(set(sizes) - set(dims))
    if unknown:
        raise InputError(
            f"no input has a dynamic dimension {unknown[0]!r}",
            fix=f"there are: {', '.join(dims) or 'none, every dimension is fixed'}",
        )
    chosen = {name: sizes.get(name, default) for name, (_, default) in dims.items()}
    for name, (dim, _) in dims.items():
        if not dim.admits(chosen[name]):
            raise InputError(
                f"dimension {name!r} is {chosen[name]}",
                fix=f"choose a size in {dim.bounds}",
            )
    generator = np.random.default_rng(seed)
    arrays: Arrays = {}
    for spec in signature.inputs:
        shape = tuple(chosen[d.name] if isinstance(d, Dim) else d for d in spec.shape)
        arrays[spec.name] = _draw(generator, spec.dtype, shape)
    return arrays


def _draw(generator: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == "str":
        return np.full(shape, "a", dtype=object)
    if np.dtype(dtype).kind == "f":
        return np.asarray(generator.standard_normal(shape)).astype(dtype)
    return np.ones(shape, dtype)


def dynamic_dims(signature: Signature) -> dict[str, tuple[Dim, int]]:
    """Return the dynamic dimensions of the inputs by name, each with its default size."""
    dims: dict[str, tuple[Dim, int]] = {}
    for spec in signature.inputs:
        for axis, dim in enumerate(spec.shape):
            if not isinstance(dim, Dim) or dim.name in dims:
                continue
            default = max(FIRST_AXIS if axis == 0 else OTHER_AXES, dim.min)
            dims[dim.name] = (dim, default if dim.max is None else min(default, dim.max))
    return dims
