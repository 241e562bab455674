"""What the verbs of the command line share: options, and how answers are printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from leptonc.backends.option import Option
from leptonc.compiler.errors import CompileExtraMissingError
from leptonc.compiler.settings.calibration_settings import CalibrationSettings
from leptonc.compiler.settings.compile_settings import CompileSettings

Command = Callable[..., Any]
_DEBUG = "Show tracebacks and what libraries print."
NEEDED_TO_COMPILE = ("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime")


class _Terminal(Console):
    """Standard output, whose reader may go away: `cli` answers that, not rich."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def terminal() -> Console:
    """Return standard output for people."""
    return _Terminal(soft_wrap=True)


def json_option(command: Command) -> Command:
    """Add `--json`, which asks for exactly one object on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def debug_option(command: Command) -> Command:
    """Add `--debug`."""
    return click.option("--debug", is_flag=True, help=_DEBUG)(command)


def answer_options(command: Command) -> Command:
    """Add `--json`, and a `--debug` that `cli` alone looks at."""
    debug = click.option("--debug", is_flag=True, expose_value=False, help=_DEBUG)
    return json_option(debug(command))


def add_flags(*options: Option) -> Callable[[Command], Command]:
    """Add the flags of settings, in their order; what is not given is None, unless `stated`."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            default = option.default if option.stated else None
            command = click.option(
                option.name,
                *option.flags,
                help=option.help,
                multiple=option.repeated,
                default=default,
                show_default=option.stated,
                **_value_of(option),
            )(command)
        return command

    return add


def _value_of(option: Option) -> dict[str, Any]:
    """Return what click checks of a flag's value; what has a parser is a text to it."""
    if option.parse is not None:
        return {"type": str}
    if option.kind is bool:
        return {"is_flag": True, "flag_value": not option.default}
    if option.choices:
        return {"type": click.Choice(option.choices)}
    if option.bounds:
        limited = click.IntRange if option.kind is int else click.FloatRange
        return {"type": limited(*option.bounds)}
    return {"type": click.Path(path_type=Path) if option.kind is Path else option.kind}


def echo_settings(
    verb: str, settings: CompileSettings | CalibrationSettings, console: Console
) -> None:
    """Print every setting, before the work starts."""
    console.print(f"leptonc {verb}", highlight=False)
    for name, value in settings.described().items():
        console.print(f"  {name:<10} {value}", highlight=False, markup=False)


def print_json(answer: object) -> None:
    """Print an answer for machines."""
    click.echo(json.dumps(answer, indent=2, allow_nan=False))


def show(report: Any, as_json: bool) -> None:
    """Print a report that has `to_json` and `render`."""
    if as_json:
        print_json(report.to_json())
    else:
        report.render(terminal())


def require_compile_extra() -> None:
    """Refuse to go on without the packages of the extra `compile`.

    Raises:
        CompileExtraMissingError: Names those that are missing.
    """
    missing = [name for name in NEEDED_TO_COMPILE if find_spec(name) is None]
    if missing:
        raise CompileExtraMissingError(
            f"not installed: {', '.join(missing)}",
            fix="pip install 'leptonc[compile]' (`leptonc doctor` shows what is there)",
        )
