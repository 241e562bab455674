"""The verb `calibrate`: what it takes, and what it prints."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from leptonc.backends.option import options_of
from leptonc.compiler.commands.options import (
    add_flags,
    debug_option,
    echo_settings,
    json_option,
    print_json,
    require_compile_extra,
    terminal,
)
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.calibration_settings import CalibrationSettings
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.settings.resolve import resolve_settings

if TYPE_CHECKING:
    from leptonc.compiler.calibrate import CalibrationResult
    from leptonc.compiler.calibration.observe import Report

*_CALIBRATION, _CHECKPOINT = options_of(CalibrationSettings).values()
_OF_COMPILE = options_of(CompileSettings)
# The settings of a compile that decide which graph the table is bound to.
_MODEL = (
    *(
        replace(_OF_COMPILE[name], help="As in the compile to come.")
        for name in ("target", "opset")
    ),
    *(_OF_COMPILE[name] for name in ("inputs", "simplify", "plugins")),
)
# The bar is full at this many steps, since only the share of the data may be known.
_FULL = 1000


@click.command()
@click.argument("sources", nargs=-1, required=True)
@add_flags(*_CALIBRATION)
@click.option("--merge", is_flag=True, help="SOURCES are tables of parts of the data: add them up.")
@add_flags(_CHECKPOINT, *_MODEL)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@json_option
@debug_option
def calibrate(
    *,
    sources: tuple[str, ...],
    merge: bool,
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
    from leptonc.compiler.calibrate import calibrate_model, merged_tables
    from leptonc.compiler.console.progress import Steps, progress_stream

    console = None if quiet or as_json else Console(file=progress_stream(), soft_wrap=True)
    if merge:
        del flags["checkpoint_seconds"]
        result = merged_tables([Path(path) for path in sources], flags.pop("output"), flags)
    else:
        source = _only(sources)
        own = {each.name: flags.pop(each.name) for each in (*_CALIBRATION, _CHECKPOINT)}
        given = {name: value for name, value in own.items() if value is not None}
        settings = CalibrationSettings(resolve_settings(source, flags), **given)
        if console is not None:
            echo_settings("calibrate", settings, console)
        steps = Steps(console, debug=debug)
        try:
            with _shown_progress(None if debug else console) as report:
                result = calibrate_model(settings, steps, report)
        except Exception:
            if debug and steps.chatter.text:
                click.echo(steps.chatter.text, err=True)
            raise
    if as_json:
        print_json(result.to_json())
    elif not quiet:
        _print_result(result, terminal())


def _only(sources: tuple[str, ...]) -> str:
    if len(sources) > 1:
        raise UsageError(
            f"one source is calibrated at a time; {len(sources)} are given",
            where=", ".join(sources),
            fix="calibrate one; to add up tables, use --merge",
        )
    return sources[0]


@contextmanager
def _shown_progress(console: Console | None) -> Iterator[Report | None]:
    """Show samples, rate, time left and memory on a terminal; anywhere else show nothing.

    Yields:
        What to call after each sample, or None.
    """
    if console is None or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("  calibrate"), BarColumn(), TextColumn("{task.fields[status]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("calibrate", total=None, status="", visible=False)
        first: list[tuple[int, float, float]] = []

        def report(samples: int, share: float | None) -> None:
            now = time.monotonic()
            # Rates count from the first sample, which also warms everything up.
            first.append((samples, share or 0.0, now)) if not first else None
            status = _status(samples, share, first[0], now)
            total = None if share is None else _FULL
            progress.update(
                task, completed=(share or 0.0) * _FULL, total=total, status=status, visible=True
            )

        yield report


def _status(samples: int, share: float | None, first: tuple[int, float, float], now: float) -> str:
    seconds = now - first[2]
    done = samples - first[0]
    parts = [f"{samples} samples"]
    if done and seconds > 0:
        parts.append(f"{done / seconds:.1f}/s")
        if share is None:
            parts.append("ETA unknown")
        elif share > first[1]:
            left = seconds * (1.0 - share) / (share - first[1])
            parts.append(f"ETA {_clock(left)}")
    parts.append(f"{_resident_bytes() / (1 << 20):,.0f} MiB")
    return " · ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _resident_bytes() -> int:
    """Return the resident size of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _print_result(result: CalibrationResult, console: Console) -> None:
    """Print what was observed and where it is."""
    ranges = result.ranges
    if result.constant:
        names = ", ".join(result.constant)
        console.print(f"constant in every sample: {names}", highlight=False, markup=False)
    console.print(
        f"{result.output}: {ranges.samples} samples, {len(ranges.tensors)} tensors",
        highlight=False,
        markup=False,
    )
