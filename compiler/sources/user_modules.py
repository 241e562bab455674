"""Python files and modules of the user: loading one runs its code, as of any program."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from leptonc.compiler.errors import RecipeError, SourceError
from leptonc.compiler.sources.files import require_file
from leptonc.compiler.sources.source import UserData
from leptonc.compiler.sources.user_calls import import_path, user_data, user_errors


def load_recipe(spec: str) -> tuple[object, Path | None]:
    """Return the object that carries a recipe's functions, and the file it came from.

    Raises:
        SourceError: The file or module does not exist.
        RecipeError: There is no such attribute, or loading it failed.
    """
    target, attribute = spec, ""
    if ":" in spec and not spec.endswith(".py"):
        target, _, attribute = spec.rpartition(":")
    module = _load(target, spec)
    origin = Path(module.__file__).resolve() if module.__file__ else None
    if not attribute:
        return module, origin
    fix = "name the object that has build() and example_inputs()"
    return _as_recipe(_attribute(module, spec, fix), module), origin


def open_attribute(spec: str) -> UserData:
    """Return the items of `module:attribute` or `file.py:attribute`, an iterable or its maker.

    Raises:
        SourceError: The file or module does not exist.
        RecipeError: There is no such attribute, it is not iterable, or it failed.
    """
    target, _, attribute = spec.rpartition(":")
    module = _load(target, spec)
    fix = "name an iterable of input mappings, or a function that returns one"
    found = _attribute(module, spec, fix)
    folder = Path(module.__file__).resolve().parent if module.__file__ else Path.cwd()
    if callable(found):
        with import_path(folder), user_errors(f"{attribute}() failed", spec):
            found = found()
    return user_data(found, spec, folder, spec)


def _attribute(module: ModuleType, spec: str, fix: str) -> object:
    target, _, attribute = spec.rpartition(":")
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise RecipeError(f"{target!r} has no attribute {attribute!r}", where=spec, fix=fix)
        found = getattr(found, part)
    return found


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


def _load(target: str, spec: str) -> ModuleType:
    return _load_file(Path(target)) if target.endswith(".py") else _import_module(target, spec)


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
