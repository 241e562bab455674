"""What `leptonc calibrate` prints: settings, progress on a terminal, and what was written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from leptonc.compiler.calibrate import CalibrationResult, CalibrationSettings
from leptonc.compiler.calibration.observe import Report

# The bar is full at this many steps, since only the share of the data may be known.
_FULL = 1000


def echo_settings(settings: CalibrationSettings, console: Console) -> None:
    """Print every setting."""
    console.print("leptonc calibrate", highlight=False)
    for name, value in settings.described().items():
        console.print(f"  {name:<10} {value}", highlight=False, markup=False)


@contextmanager
def shown_progress(console: Console | None) -> Iterator[Report | None]:
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


def print_result(result: CalibrationResult, console: Console) -> None:
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
