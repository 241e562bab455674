"""Recipes: a Python file, or `module:attribute`, that says how to build a model.

A recipe has `build()` and `example_inputs()`, and optionally `dynamic_shapes()`,
`calibration_data()`, `evaluate(predict)` and `tokenizer()`. Loading one runs its code: it is
as trusted as any program that you start.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from leptonc.compiler.errors import RecipeError, SourceError
from leptonc.compiler.sources.dimensions import parse_dynamic_axes
from leptonc.compiler.sources.module_check import require_plain_module
from leptonc.compiler.sources.source import Evaluate, Source, UserData, hash_file, require_file
from leptonc.compiler.sources.torch_reference import TorchReference, example_arrays, hash_weights
from leptonc.compiler.sources.user_calls import import_path, user_data, user_errors
from leptonc.runtime.arrays import Arrays, load_arrays
from leptonc.runtime.errors import InputError

PURPOSE = {
    "build": "returns the torch.nn.Module",
    "example_inputs": "returns {argument name: example tensor}",
}


def open_recipe(spec: str, inputs: Path | None) -> Source:
    """Load a recipe, build its model in eval mode, and collect what the compiler needs.

    Args:
        spec: A path to a .py file, with or without `:attribute`, or `module:attribute`.
        inputs: Example inputs that replace the recipe's own, or None.

    Raises:
        SourceError: The file or module does not exist.
        RecipeError: The recipe is incomplete or one of its functions failed.
    """
    recipe, origin = _load(spec)
    with import_path(origin.parent if origin else Path.cwd()):
        module = require_plain_module(_call(recipe, "build", spec), spec)
        module.eval()
        example = load_arrays(inputs) if inputs else None
        if example is None:
            example = example_arrays(_call(recipe, "example_inputs", spec), spec)
        declared = _call(recipe, "dynamic_shapes", spec) if _has(recipe, "dynamic_shapes") else {}
        if inputs and isinstance(declared, Mapping):
            _require_declared(declared, example, inputs)
    digest = hashlib.sha256()
    if origin:
        hash_file(origin, digest)
    weight_bytes = hash_weights(module, digest)
    return Source(
        kind="recipe",
        name=_name(spec),
        inputs=example,
        axes=parse_dynamic_axes(declared, example),
        reference=TorchReference(module),
        fingerprint=digest.hexdigest(),
        program=module,
        user_code=origin.parent if origin else None,
        weight_bytes=weight_bytes,
        calibration_data=_data_of(recipe, origin, spec),
        evaluate=_evaluation_of(recipe, origin, spec),
    )


def _evaluation_of(recipe: object, origin: Path | None, spec: str) -> Evaluate | None:
    """Return the recipe's `evaluate`, with its answer checked, if it has one."""
    if not _has(recipe, "evaluate"):
        return None
    folder = origin.parent if origin else Path.cwd()

    def evaluate(predict: Callable[[Mapping[str, np.ndarray]], Arrays]) -> dict[str, float]:
        with import_path(folder), user_errors("evaluate() failed", spec):
            figures = recipe.evaluate(predict)  # type: ignore[attr-defined]
        if not isinstance(figures, Mapping) or not figures:
            raise RecipeError(
                f"evaluate() returns {type(figures).__name__}, not figures by name",
                where=spec,
                fix='return a mapping such as {"accuracy": 0.93}',
            )
        try:
            return {str(name): float(value) for name, value in figures.items()}
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"evaluate() returns a figure that is no number: {error}",
                where=spec,
                fix='return a mapping such as {"accuracy": 0.93}',
            ) from error

    return evaluate


def _data_of(recipe: object, origin: Path | None, spec: str) -> Callable[[], UserData] | None:
    """Return a function that calls `calibration_data()`, if the recipe has it."""
    if not _has(recipe, "calibration_data"):
        return None
    folder = origin.parent if origin else Path.cwd()

    def call() -> UserData:
        with import_path(folder):
            data = _call(recipe, "calibration_data", spec)
        return user_data(data, "calibration_data()", folder, spec)

    return call


def open_attribute(spec: str) -> UserData:
    """Return the items of `module:attribute` or `file.py:attribute`, an iterable or its maker.

    Raises:
        SourceError: The file or module does not exist.
        RecipeError: There is no such attribute, it is not iterable, or it failed.
    """
    target, _, attribute = spec.rpartition(":")
    module = _load_file(Path(target)) if target.endswith(".py") else _import_module(target, spec)
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise RecipeError(
                f"{target!r} has no attribute {attribute!r}",
                where=spec,
                fix="name an iterable of input mappings, or a function that returns one",
            )
        found = getattr(found, part)
    folder = Path(module.__file__).resolve().parent if module.__file__ else Path.cwd()
    if callable(found):
        with import_path(folder), user_errors(f"{attribute}() failed", spec):
            found = found()
    return user_data(found, spec, folder, spec)


def _require_declared(declared: Mapping[str, object], example: Arrays, inputs: Path) -> None:
    missing = [name for name in declared if name not in example]
    if missing:
        raise InputError(
            f"the file holds no array {missing[0]!r}, which dynamic_shapes() speaks of",
            where=str(inputs),
            fix="write one array for each argument of the module, under its name",
        )


def _name(spec: str) -> str:
    file, _, attribute = spec.rpartition(":") if ":" in spec else (spec, "", "")
    return attribute or Path(file).stem


def _load(spec: str) -> tuple[object, Path | None]:
    """Return the object that carries the recipe's functions, and the file it came from."""
    target, attribute = spec, ""
    if ":" in spec and not spec.endswith(".py"):
        target, _, attribute = spec.rpartition(":")
    module = _load_file(Path(target)) if target.endswith(".py") else _import_module(target, spec)
    origin = Path(module.__file__).resolve() if module.__file__ else None
    if not attribute:
        return module, origin
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise RecipeError(
                f"{target!r} has no attribute {attribute!r}",
                where=spec,
                fix="name the object that has build() and example_inputs()",
            )
        found = getattr(found, part)
    return _as_recipe(found, module), origin


def _as_recipe(found: object, module: ModuleType) -> object:
    """Accept a namespace with `build`, a module instance, or the build function itself."""
    if hasattr(found, "build"):
        return found() if isinstance(found, type) else found
    if isinstance(found, torch.nn.Module):
        return _Overridden(module, lambda: found)
    if callable(found):
        return _Overridden(module, found)
    return found


class _Overridden:
    """A recipe module whose `build` is the attribute that the user named."""

    def __init__(self, module: ModuleType, build: Callable[[], Any]) -> None:
        self._module = module
        self.build = build

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _load_file(path: Path) -> ModuleType:
    require_file(path)
    name = f"leptonc_recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise SourceError("this is not a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with import_path(path.resolve().parent), user_errors("loading the recipe failed", str(path)):
        spec.loader.exec_module(module)
    return module


def _import_module(name: str, spec: str) -> ModuleType:
    with import_path(Path.cwd()):
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise SourceError(
                f"there is no module {name!r}",
                where=spec,
                fix="run from the folder that holds it, or give the path of a recipe.py",
            )
        with user_errors(f"importing {name!r} failed", spec):
            return importlib.import_module(name)


def _has(recipe: object, function: str) -> bool:
    return callable(getattr(recipe, function, None))


def _call(recipe: object, function: str, spec: str) -> Any:
    if not _has(recipe, function):
        raise RecipeError(
            f"the recipe has no {function}()",
            where=spec,
            fix=f"define {function}(), which {PURPOSE[function]}",
        )
    with user_errors(f"{function}() failed", spec):
        return getattr(recipe, function)()
