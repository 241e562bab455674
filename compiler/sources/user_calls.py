"""Calls into the user's code: whatever it raises becomes one error that names their line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from pathlib import Path

from leptonc.compiler.errors import RecipeError
from leptonc.compiler.sources.source import UserData
from leptonc.runtime.errors import LeptonError


@contextmanager
def user_errors(what: str, spec: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one error that names their line."""
    try:
        yield
    except (LeptonError, KeyboardInterrupt):
        raise
    except BaseException as error:
        # Extensions raise what is no Exception (a panic in Rust), and sys.exit() does too.
        raise RecipeError(
            f"{what}: {type(error).__name__}: {error}",
            where=_last_line(error, spec),
            fix="run the recipe's function by itself, or add --debug to see the traceback",
        ) from error


def _last_line(error: BaseException, spec: str) -> str:
    """Name the last line of the user's own code on the way to `error`."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    path = Path(spec.rpartition(":")[0] or spec) if not spec.endswith(".py") else Path(spec)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).name == path.name]
    if not own:
        return spec
    return f"{own[-1].filename}:{own[-1].lineno} in {own[-1].name}(): {own[-1].line}"


@contextmanager
def import_path(folder: Path) -> Iterator[None]:
    """Let a recipe import the files beside it, and stay in our folder when it leaves for another."""
    entry = str(folder)
    here = Path.cwd()
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        # The user's paths on the command line are relative to where the command was started.
        os.chdir(here)
        if entry in sys.path:
            sys.path.remove(entry)


def user_data(data: object, name: str, folder: Path, spec: str) -> UserData:
    """Return calibration data that the user's code gave, not looked at yet.

    Args:
        data: What should be an iterable of mappings.
        name: What it is called in errors.
        folder: Where it may import its neighbours.
        spec: The source that it belongs to.
    """
    with user_errors(f"{name} failed", spec):
        length = len(data) if isinstance(data, Sized) else None
    return UserData(name, _items(data, name, folder, spec), length)


def _items(data: object, name: str, folder: Path, spec: str) -> Iterator[object]:
    """Yield the items of an iterable of the user's; what it raises becomes one error."""
    if isinstance(data, Mapping | str) or not isinstance(data, Iterable):
        raise RecipeError(
            f"{name} is a {type(data).__name__}, not an iterable of input mappings",
            where=spec,
            fix="yield one {input name: array} for each batch",
        )
    with import_path(folder), user_errors(f"{name} failed", spec):
        items = iter(data)
    while True:
        # Generators run only now, and may import their neighbours.
        with import_path(folder), user_errors(f"{name} failed", spec):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item
