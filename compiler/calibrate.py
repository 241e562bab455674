"""`leptonc calibrate`: from a source and data to a calibration table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leptonc.compiler.calibration.data import require_data
from leptonc.compiler.calibration.observe import Report, observe_ranges
from leptonc.compiler.console.progress import Steps, peak_bytes
from leptonc.compiler.errors import UsageError
from leptonc.compiler.job import wanted_plugins
from leptonc.compiler.settings.calibration_settings import CalibrationSettings
from leptonc.compiler.subject import open_and_export
from leptonc.passes.errors import RangesError
from leptonc.passes.pipeline import run_passes
from leptonc.passes.ranges.file import read_ranges, write_ranges
from leptonc.passes.ranges.table import Ranges
from leptonc.passes.schedule import CANONICAL, optimize
from leptonc.passes.simplify import Simplify


@dataclass(frozen=True)
class CalibrationResult:
    """What a calibration produced.

    Attributes:
        output: The table.
        ranges: What it holds.
        seconds: How long observing took, without loading and exporting.
        peak_bytes: The largest resident size of the process.
    """

    output: Path
    ranges: Ranges
    seconds: float
    peak_bytes: int

    @property
    def constant(self) -> tuple[str, ...]:
        """The tensors that held one number only."""
        return tuple(name for name, seen in self.ranges.tensors.items() if seen.constant)

    def to_json(self) -> dict[str, Any]:
        """Return the one object that `--json` prints."""
        return {
            "output": str(self.output),
            "samples": self.ranges.samples,
            "tensors": len(self.ranges.tensors),
            "constant": list(self.constant),
            "data": f"{self.ranges.data:064x}",
            "seconds": round(self.seconds, 4),
            "peak_bytes": self.peak_bytes,
        }


def calibrate_model(
    settings: CalibrationSettings, steps: Steps | None = None, report: Report | None = None
) -> CalibrationResult:
    """Observe the model of `settings` over its data and write the table.

    Args:
        settings: What to do.
        steps: Shows and times what is done.
        report: Called after each sample.

    Raises:
        LeptonError: Of the kind that says what is wrong; a run that had begun leaves its
            checkpoint beside the output.
    """
    steps = steps or Steps()
    _require_ready(settings)
    model_settings = settings.model
    plugins = wanted_plugins(model_settings)
    subject = open_and_export(model_settings, steps)
    with steps.step("optimize", "rewrite the graph to its canonical form"):
        if model_settings.simplify:
            run_passes(subject.model, (Simplify(),))
        optimize(subject.model, target=model_settings.target[0], plugins=plugins, upto=CANONICAL)
    began = time.perf_counter()
    with steps.step("observe", "run the model over the data", spinner=report is None):
        ranges = observe_ranges(
            subject.model,
            subject.source,
            data=settings.data,
            limit=settings.samples,
            checkpoint=settings.checkpoint,
            report=report,
        )
    seconds = time.perf_counter() - began
    with steps.step("write", "write the table"):
        write_ranges(settings.output, ranges)
    settings.checkpoint.path.unlink(missing_ok=True)
    return CalibrationResult(settings.output, ranges, seconds, peak_bytes())


def merged_tables(
    tables: Sequence[Path], output: Path, given: Mapping[str, object]
) -> CalibrationResult:
    """Add up tables of parts of the data, exactly, and write the table of the whole.

    Args:
        tables: The parts.
        output: The table to write.
        given: Settings of a calibration run, which say nothing here: None or empty.

    Raises:
        UsageError: Fewer than two tables are given, or a setting that says nothing here.
        RangesError: One is damaged, or they do not belong together.
    """
    began = time.perf_counter()
    for name, value in given.items():
        if value is not None and value != ():
            raise UsageError(f"--merge runs nothing, so --{name} means nothing", fix="leave it out")
    if len(tables) < 2:
        raise UsageError(
            f"--merge takes at least two tables; {len(tables)} given",
            fix="leptonc calibrate --merge a.json b.json -o c.json",
        )
    merged = read_ranges(tables[0])
    for path in tables[1:]:
        merged = _added(merged, path)
    write_ranges(output, merged)
    return CalibrationResult(output, merged, time.perf_counter() - began, peak_bytes())


def _added(merged: Ranges, path: Path) -> Ranges:
    try:
        return merged.plus(read_ranges(path))
    except RangesError as error:
        where = str(path)
        if error.where != where:
            error.where = f"{where}; {error.where}" if error.where else where
        raise


def _require_ready(settings: CalibrationSettings) -> None:
    """Find out before the long run what would stop it at its end."""
    require_data(settings.data)
    folder = settings.output.absolute().parent
    if not folder.is_dir() or settings.output.is_dir():
        raise UsageError(
            "the table cannot be written there",
            where=str(settings.output),
            fix="name a file in a folder that exists, with -o",
        )
    for path in (Path(settings.model.source), Path(settings.data or "")):
        if path.is_file() and settings.output.is_file() and path.samefile(settings.output):
            raise UsageError(
                "the table would overwrite what it is made from",
                where=str(settings.output),
                fix="give it another name with -o",
            )
    partial = settings.checkpoint.path
    if partial.exists() and not settings.resume:
        raise UsageError(
            "there is the checkpoint of an unfinished calibration",
            where=str(partial),
            fix="go on with --resume, or delete it to start again",
        )
