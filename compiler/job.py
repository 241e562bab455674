"""What every step of a compile is handed, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leptonc.backends.base import Backend, Target
from leptonc.compiler.console.progress import Steps
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.sources.source import Source
from leptonc.compiler.verification.trials import Trial
from leptonc.passes import PASSES
from leptonc.passes.plugins import Plugin, load_plugins


@dataclass(frozen=True, eq=False)
class Job:
    """One source, on its way to one target.

    Attributes:
        settings: What the user asked for.
        source: What is compiled.
        trials: Inputs and the right answers to them.
        target: What to build for.
        backend: Builds for it.
        folder: For large files; it outlives the job.
        steps: Shows and times what is done.
        plugins: Passes of others.
        measure: Measure each quantised layer, also where there is no goal.
    """

    settings: CompileSettings
    source: Source
    trials: tuple[Trial, ...]
    target: Target
    backend: Backend
    folder: Path
    steps: Steps
    plugins: tuple[Plugin, ...] = ()
    measure: bool = False


def wanted_plugins(settings: CompileSettings) -> tuple[Plugin, ...]:
    """Load the passes of other distributions, unless the user wants none.

    Raises:
        PluginError: One cannot be used.
    """
    return load_plugins([one.name for one in PASSES]) if settings.plugins else ()
