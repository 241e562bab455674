"""The settings of a calibration: which model as for a compile, which data, and where to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from leptonc.backends.option import option
from leptonc.compiler.settings.compile_settings import CompileSettings


@dataclass(frozen=True)
class Checkpoint:
    """Where an unfinished run is kept.

    Attributes:
        path: The file.
        resume: Go on from it, if it is there.
        seconds: The time between two checkpoints: what a killed run loses at most.
    """

    path: Path
    resume: bool = False
    seconds: float = 60.0


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """What to calibrate, and with what.

    Attributes:
        model: What to export and how, as for a compile: a table is bound to that graph.
        data: An .npz file, a folder of them, or `module:iterable`; None for the recipe's own.
        output: The table to write.
        samples: At most so many samples; None for all.
        resume: Go on from the checkpoint beside `output`, if there is one.
        checkpoint_seconds: Time between two checkpoints.
    """

    model: CompileSettings = field(kw_only=False)
    data: str | None = option(None, "An .npz file, a folder of them, or module:iterable.")
    output: Path = option(Path("ranges.json"), "", short="-o", stated=True)
    samples: int | None = option(None, "At most so many. [default: all]", bounds=(1, None))
    resume: bool = option(False, "Go on where an interrupted run stopped.")
    checkpoint_seconds: float = option(
        60.0,
        "Seconds between two checkpoints.",
        flag="--checkpoint",
        bounds=(0.0, None),
        stated=True,
    )

    @property
    def checkpoint(self) -> Checkpoint:
        """Where an unfinished run is kept."""
        path = self.output.with_name(f"{self.output.name}.partial")
        return Checkpoint(path, self.resume, self.checkpoint_seconds)

    def described(self) -> dict[str, str]:
        """Return every setting in words, to be echoed before work starts."""
        of_model = self.model.described()
        kept = {name: of_model[name] for name in ("source", "opset", "simplify", "plugins")}
        return {
            **kept,
            "data": self.data or "calibration_data() of the source",
            "samples": "all" if self.samples is None else f"at most {self.samples}",
            "resume": "yes" if self.resume else "no",
            "output": str(self.output),
        }
