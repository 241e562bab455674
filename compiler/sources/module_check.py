"""What `build()` must return: a plain module with weights that exist."""

from __future__ import annotations

import torch
from torch.nn.parameter import is_lazy

from leptonc.compiler.errors import RecipeError


def require_plain_module(module: object, where: str) -> torch.nn.Module:
    """Return `module` if torch.export and our fingerprint can read it.

    Raises:
        RecipeError: Not a module, one wrapped for another purpose, or one whose weights are
            not there: lazy, on the meta device, sparse.
    """
    if not isinstance(module, torch.nn.Module):
        raise RecipeError(
            f"build() returned {type(module).__name__}, not a torch.nn.Module", where=where
        )
    wrapper = _wrapper(module)
    if wrapper:
        raise RecipeError(f"build() returned {wrapper[0]}", where=where, fix=wrapper[1])
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor):
            continue
        state = _state(tensor)
        if state:
            raise RecipeError(
                f"the weight {name!r} {state[0]}", where=where, fix=f"{state[1]} in build()"
            )
    return module


def _wrapper(module: torch.nn.Module) -> tuple[str, str] | None:
    if isinstance(module, torch.jit.ScriptModule):
        return "a TorchScript module, which torch.export does not read", (
            "return the Python module that it was made from"
        )
    if hasattr(module, "_orig_mod"):
        return (
            "a module wrapped by torch.compile",
            "return the module itself, without torch.compile",
        )
    if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return f"a module wrapped in {type(module).__name__}", "return its .module"
    return None


def _state(tensor: torch.Tensor) -> tuple[str, str] | None:
    if is_lazy(tensor):
        return "has no shape yet: its layer is lazy", "run the module once on example inputs"
    if tensor.is_meta:
        return "is on the meta device: it has no values", "load weights"
    if tensor.layout != torch.strided:
        return "is sparse", "make it dense with .to_dense()"
    return None
