"""The TOML file beside a recipe: one table `[compile]`, whose keys are the names of settings."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leptonc.backends.option import Option
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.compile_settings import backend_options


def read_settings_file(path: Path, settings: Mapping[str, Option]) -> dict[str, Any]:
    """Return what the file asks for, by name. Options of backends are as they are written.

    Args:
        path: The file. What it says of paths is relative to its folder.
        settings: The options of the compile itself.

    Raises:
        UsageError: The file is not TOML, or holds an unknown name or a wrong value.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the settings file is not valid TOML: {error}", where=str(path)
        ) from error
    table = tables.get("compile", {})
    if tables.keys() - {"compile"} or not isinstance(table, dict):
        raise UsageError(
            f"the settings file holds {', '.join(tables)}; its only table is [compile]",
            where=str(path),
            fix="write every setting under [compile]",
        )
    known = {**backend_options(), **settings}
    values = {}
    for name, value in table.items():
        if name not in known:
            raise UsageError(
                f"unknown setting {name!r} in [compile]",
                where=str(path),
                fix=f"use one of: {', '.join(sorted(known))}",
            )
        if name in settings:
            values[name] = read_setting(settings[name], value, path)
        else:
            relative = known[name].kind is Path and isinstance(value, str)
            values[name] = path.parent / value if relative else value
    return values


def read_setting(option: Option, value: Any, file: Path | None = None) -> Any:
    """Return a setting as its field holds it.

    Args:
        option: The setting.
        value: As the command line or TOML has it.
        file: Where it stands, and what a path is relative to; None for a flag.

    Raises:
        UsageError: It has the wrong type, or is none of the choices, or out of bounds.
    """
    where = str(file) if file else None
    try:
        return option.read(value, file.parent if file else Path())
    except TypeError as error:
        raise UsageError(
            f"the setting {option.name} = {value!r} has the wrong type", where=where
        ) from error
    except ValueError as error:
        raise UsageError(f"{option.name} = {error}", where=where) from error
