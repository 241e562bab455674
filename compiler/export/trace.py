"""PyTorch module -> exported program, with torch.export's refusals told in the user's terms."""

from __future__ import annotations

import inspect
import re

import torch

from leptonc.compiler.errors import BakedDimensionError, ExportError
from leptonc.compiler.sources.dimensions import (
    DynamicAxes,
    example_sizes,
    named_dims,
    resize_inputs,
)
from leptonc.compiler.sources.source import Source
from leptonc.compiler.sources.torch_reference import as_tensors
from leptonc.compiler.sources.user_code import Restriction, line_of_error, watched_sizes
from leptonc.runtime.arrays import Arrays
from leptonc.runtime.errors import LeptonError

_SPECIALISED = re.compile(
    r"marked (\w+) as dynamic but your code specialized it to be a constant \((\d+)\)"
)
_RELATED = re.compile(r"^\s+(\w+) = (.+)$", re.MULTILINE)
_PLACES = re.compile(r"of (\w+) = (L\['\w+'\]\.size\(\)\[\d+\]) in the specified range")
_GUARDS = re.compile(r"satisfy the generated guard (.+)")
_BY_VALUE = re.compile(r"data-dependent|DataDependent|unbacked|\.item\(\)|_local_scalar_dense")


def trace(module: torch.nn.Module, source: Source) -> torch.export.ExportedProgram:
    """Trace `module` with `source`'s example inputs and dynamic dimensions.

    Raises:
        ExportError: torch.export refuses the module; the error names the user's line.
        BakedDimensionError: The module fixes or restricts a dimension declared dynamic.
    """
    inputs = _traceable_inputs(source.inputs, source.axes)
    dims = {
        name: torch.export.Dim(name, min=dim.min, max=dim.max)
        for name, dim in named_dims(source.axes).items()
    }
    shapes = {
        name: {axis: dims[dim.name] for axis, dim in source.axes.get(name, {}).items()}
        for name in inputs
    }
    _require_named_parameters(module, source)
    with watched_sizes(source.user_code) as restrictions:
        try:
            return torch.export.export(
                module, (), as_tensors(inputs), dynamic_shapes=shapes, strict=False
            )
        except LeptonError:
            raise
        except (Exception, SystemExit) as error:
            raise _trace_error(error, source, restrictions) from error


def _require_named_parameters(module: torch.nn.Module, source: Source) -> None:
    """Refuse inputs that reach forward() through `**kwargs`, which torch.export cannot name."""
    parameters = inspect.signature(module.forward).parameters
    missing = [name for name in source.inputs if name not in parameters]
    if missing:
        raise ExportError(
            f"forward() of {type(module).__name__} has no parameter named {missing[0]!r}",
            where=source.name,
            fix=f"wrap it in a module whose forward(self, {', '.join(source.inputs)}) calls it",
        )


def _traceable_inputs(inputs: Arrays, axes: DynamicAxes) -> Arrays:
    """Enlarge dynamic dimensions of size 1, which torch.export would take for constants."""
    sizes = example_sizes(inputs, axes)
    for name, dim in named_dims(axes).items():
        sizes[name] = dim.clamp(max(sizes[name], 2))
    return resize_inputs(inputs, axes, sizes)


def _trace_error(
    error: BaseException, source: Source, restrictions: list[Restriction]
) -> ExportError:
    text = str(error)
    fixed = _SPECIALISED.search(text)
    if fixed:
        name, size = fixed.groups()
        lines = [each.line for each in restrictions if each.fixes]
        return BakedDimensionError(
            f"dimension {name!r} is declared dynamic, but the module fixes it to {size}",
            where=lines[-1] if lines else source.name,
            fix=f"compute with x.shape[axis] instead of a number, or leave {name!r} out of "
            "dynamic_shapes()",
        )
    if "onstraints violated" in text:
        return BakedDimensionError(
            "the module restricts its dynamic dimensions further than dynamic_shapes() says"
            + _wanted(text),
            where=restrictions[-1].line if restrictions else source.name,
            fix="change the bounds in dynamic_shapes() so that they keep to this, for instance "
            "with a larger lower bound",
        )
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    by_value = _BY_VALUE.search(f"{type(error).__name__}: {text}")
    return ExportError(
        f"torch.export refuses the module: {type(error).__name__}: {first.strip()}",
        where=line_of_error(error, source.user_code) or source.name,
        fix="values of tensors cannot decide the control flow or the shapes of an exported "
        "module: use torch.where or torch.cond at that line; --debug shows PyTorch's report"
        if by_value
        else "write that part with PyTorch operators on tensors that torch.export can follow; "
        "--debug shows PyTorch's report",
    )


def _wanted(text: str) -> str:
    """Return what PyTorch would accept: its suggestion, or else the guards that it names."""
    wanted = [f"{name} = {value}" for name, value in _RELATED.findall(text)]
    if not wanted:
        sizes = {place: name for name, place in _PLACES.findall(text)}
        for guard in _GUARDS.findall(text):
            for place, name in sizes.items():
                guard = guard.replace(place, name)  # noqa: PLW2901
            wanted.append(guard.rstrip("."))
    return ": " + ", ".join(wanted) if wanted else ""
