"""A PyTorch module as a reference: named arrays in, named arrays out.

The names given to outputs here are the names that the artifact will carry, so export and
reference share this one definition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils import _pytree as pytree

from leptonc.compiler.errors import ExportError, RecipeError, SourceError
from leptonc.runtime.arrays import Arrays


@dataclass(frozen=True)
class TorchReference:
    """Calls `module` with keyword tensors, without gradients."""

    module: torch.nn.Module

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run the module.

        Args:
            inputs: Arrays by keyword.

        Returns:
            One array per output tensor, named as `output_names` says.
        """
        with torch.no_grad():
            result = self.module(**as_tensors(inputs))
        return {name: as_array(name, tensor) for name, tensor in named_outputs(result)}


def as_tensors(inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return writable tensors with the values of `inputs`."""
    return {name: torch.from_numpy(np.array(array, copy=True)) for name, array in inputs.items()}


def as_array(name: str, tensor: torch.Tensor) -> np.ndarray:
    """Return the values of `tensor` as a NumPy array.

    Raises:
        SourceError: It holds no plain values, or values that no array can carry into or out
            of a model (bfloat16, float8, complex).
    """
    if tensor.layout != torch.strided or tensor.is_meta:
        kind = "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
        raise SourceError(
            f"{name!r} is a {kind} tensor, not a dense one with values",
            where=name,
            fix="use dense tensors on the CPU at the edge of the model",
        )
    dense = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()
    try:
        array = dense.numpy()
    except TypeError as error:
        raise SourceError(
            f"{name!r} has dtype {tensor.dtype}, which NumPy does not have",
            where=name,
            fix="cast it to float32 at the edge of the model",
        ) from error
    return _carried(name, array)


def _carried(name: str, array: np.ndarray) -> np.ndarray:
    """Return `array` in the machine's byte order, if a model can take or return its dtype."""
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise SourceError(
            f"{name!r} has dtype {array.dtype}, which no model of ours can take or return",
            where=name,
            fix="use booleans, integers or floats; a complex value as its real and imaginary part",
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def named_outputs(result: object) -> list[tuple[str, torch.Tensor]]:
    """Flatten what a module returned, in the exporter's order, and name every tensor.

    A bare tensor is `output`; a dict's keys and a dataclass's fields are names; items of a
    tuple are `output_0`, `output_1`; nested containers join their keys with dots. None is
    dropped, as the exporter does.

    Raises:
        ExportError: A leaf is not a tensor, two names collide, or there is no tensor at all.
    """
    leaves, _ = pytree.tree_flatten_with_path(result)
    named: dict[str, torch.Tensor] = {}
    for path, leaf in leaves:
        if leaf is None:
            continue
        name = _join(path)
        if not isinstance(leaf, torch.Tensor):
            raise ExportError(
                f"the module's output {name!r} is a {type(leaf).__name__}, not a tensor",
                fix="return tensors only: a tensor, a tuple of tensors or a dict of tensors",
            )
        if not name.strip() or name in named:
            raise ExportError(
                f"the module returns two outputs named {name!r}"
                if name in named
                else "the module returns an output without a name",
                fix="give every key of the dict that forward() returns a name of its own",
            )
        named[name] = leaf
    if not named:
        raise ExportError("the module returns no tensor", fix="return at least one tensor")
    return list(named.items())


def _join(path: tuple[object, ...]) -> str:
    parts = [str(_key(part)) for part in path]
    if not parts:
        return "output"
    if parts[0].isdecimal():
        parts[0] = f"output_{parts[0]}"
    return ".".join(parts)


def _key(part: object) -> object:
    for attribute in ("key", "idx", "name"):
        if hasattr(part, attribute):
            return getattr(part, attribute)
    return part


def example_arrays(example: object, where: str) -> Arrays:
    """Check what `example_inputs()` returned and turn it into arrays.

    Raises:
        RecipeError: Not a dict of tensors or arrays with identifiers as names.
    """
    if not isinstance(example, Mapping) or not example:
        raise RecipeError(
            f"example_inputs() returned {type(example).__name__}, not a non-empty dict",
            where=where,
            fix="return {argument name of forward: tensor}",
        )
    arrays: Arrays = {}
    for name, value in example.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise RecipeError(f"the input name {name!r} is not an identifier", where=where)
        if isinstance(value, np.ndarray):
            arrays[name] = _carried(name, value)
        elif isinstance(value, torch.Tensor):
            arrays[name] = as_array(name, value)
        else:
            raise RecipeError(
                f"example input {name!r} is a {type(value).__name__}, not a tensor",
                where=where,
                fix="pass tensors as inputs and fix everything else in build()",
            )
    return arrays


def hash_weights(module: torch.nn.Module, digest: hashlib._Hash) -> int:
    """Add names, dtypes, shapes and bytes of all weights to `digest`; return their size.

    Tensors shared under several names are counted once in the size.
    """
    seen: set[int] = set()
    total = 0
    for name, tensor in sorted(module.state_dict(keep_vars=True).items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            total += tensor.numel() * tensor.element_size()
    return total
