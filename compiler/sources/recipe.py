"""Recipes: a Python file, or `module:attribute`, that says how to build a model.

A recipe has `build()` and `example_inputs()`, and optionally `dynamic_shapes()`,
`calibration_data()`, `evaluate(predict)` and `tokenizer()`. Loading one runs its code: it is
as trusted as any program that you start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from leptonc.compiler.errors import RecipeError
from leptonc.compiler.sources.dimensions import parse_dynamic_axes
from leptonc.compiler.sources.files import hash_file
from leptonc.compiler.sources.module_check import require_plain_module
from leptonc.compiler.sources.source import Evaluate, Source, UserData
from leptonc.compiler.sources.torch_reference import TorchReference, example_arrays, hash_weights
from leptonc.compiler.sources.user_calls import import_path, user_data, user_errors
from leptonc.compiler.sources.user_modules import load_recipe
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
    recipe, origin = load_recipe(spec)
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
