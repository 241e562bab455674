"""What the verbs of the command line share: options, and how answers are printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import click
from rich.console import Console

from leptonc.compiler.errors import CompileExtraMissingError

Command = Callable[..., Any]
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
    text = "Show tracebacks and what libraries print."
    return click.option("--debug", is_flag=True, help=text)(command)


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
