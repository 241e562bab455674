"""The verb `calibrate`: what it takes, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from leptonc.compiler.commands.options import (
    debug_option,
    json_option,
    print_json,
    require_compile_extra,
    terminal,
)
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.compile_settings import FIRST_OPSET, LAST_OPSET, resolve_settings


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--data", help="An .npz file, a folder of them, or module:iterable.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("ranges.json"),
    show_default=True,
)
@click.option("--samples", type=click.IntRange(1), help="At most so many. [default: all]")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@click.option("--merge", is_flag=True, help="SOURCES are tables of parts of the data: add them up.")
@click.option(
    "--checkpoint",
    type=click.FloatRange(0.0),
    default=60.0,
    show_default=True,
    help="Seconds between two checkpoints.",
)
@click.option("-t", "--target", multiple=True, help="As in the compile to come.")
@click.option(
    "--opset", type=click.IntRange(FIRST_OPSET, LAST_OPSET), help="As in the compile to come."
)
@click.option("--inputs", type=click.Path(path_type=Path), help="Example inputs as .npz.")
@click.option("--simplify", is_flag=True, default=None, help="Run onnxsim as well.")
@click.option(
    "--without-plugins",
    "plugins",
    flag_value=False,
    default=None,
    help="Run no passes of other distributions.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@json_option
@debug_option
def calibrate(
    *,
    sources: tuple[str, ...],
    data: str | None,
    output: Path,
    samples: int | None,
    resume: bool,
    merge: bool,
    checkpoint: float,
    quiet: bool,
    as_json: bool,
    debug: bool,
    **flags: Any,
) -> None:
    """Run SOURCE over calibration data and write the range of every tensor that matters.

    SOURCE is what `compile` takes, and its settings are those of the compile: the table is bound
    to the graph. Interrupted, it keeps what it has seen and goes on with --resume.
    """
    require_compile_extra()
    from leptonc.compiler.calibrate import CalibrationSettings, merged_tables
    from leptonc.compiler.calibrate import calibrate as run_calibration
    from leptonc.compiler.calibrate_view import echo_settings, print_result, shown_progress
    from leptonc.compiler.console.progress import Stages, progress_stream

    console = None if quiet or as_json else Console(file=progress_stream(), soft_wrap=True)
    if merge:
        given = {"data": data, "samples": samples, "resume": resume or None, **flags}
        result = merged_tables([Path(path) for path in sources], output, given)
    else:
        source = _only(sources)
        settings = CalibrationSettings(
            resolve_settings(source, flags), output, data, samples, resume, checkpoint
        )
        if console is not None:
            echo_settings(settings, console)
        stages = Stages(console, debug=debug)
        try:
            with shown_progress(None if debug else console) as report:
                result = run_calibration(settings, stages, report)
        except Exception:
            if debug and stages.chatter.text:
                click.echo(stages.chatter.text, err=True)
            raise
    if as_json:
        print_json(result.to_json())
    elif not quiet:
        print_result(result, terminal())


def _only(sources: tuple[str, ...]) -> str:
    if len(sources) > 1:
        raise UsageError(
            f"one source is calibrated at a time; {len(sources)} are given",
            where=", ".join(sources),
            fix="calibrate one; to add up tables, use --merge",
        )
    return sources[0]
