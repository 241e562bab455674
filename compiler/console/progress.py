"""The steps of a run: their names, their timings, and how they are shown.

On a terminal the running step spins and finished ones leave a line with their time; anywhere
else each step is one plain line. `--quiet` and `--json` show nothing; the timings are kept.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from leptonc.compiler.console.chatter import Chatter, held_back

_BAR = 24


@dataclass(frozen=True)
class Step:
    """One finished step and the wall-clock seconds it took."""

    name: str
    seconds: float


@dataclass
class Steps:
    """Runs steps one after another, holding back what libraries print meanwhile.

    Attributes:
        console: Where progress is shown, or None for silence.
        debug: Let libraries' output through.
        finished: What has been done so far.
        chatter: What libraries printed in the step that ran last.
    """

    console: Console | None = None
    debug: bool = False
    finished: list[Step] = field(default_factory=list)
    chatter: Chatter = field(default_factory=Chatter)
    _status: Status | None = None
    _title: str = ""

    @contextmanager
    def step(self, name: str, title: str, *, spinner: bool = True) -> Iterator[None]:
        """Run the block as the step `name`, shown as `title`.

        Args:
            name: For the timings.
            title: For people.
            spinner: Show that it runs; off for a block that shows its own progress.
        """
        start = time.perf_counter()
        with (
            self._shown(title) if spinner else nullcontext(),
            held_back(show=self.debug) as self.chatter,
        ):
            yield
        step = Step(name, time.perf_counter() - start)
        self.finished.append(step)
        if self.console is not None:
            self.console.print(f"  {title:<42} {step.seconds:8.2f} s", highlight=False)

    @contextmanager
    def _shown(self, title: str) -> Iterator[None]:
        if self.console is None or not self.console.is_terminal or self.debug:
            yield
            return
        with self.console.status(f"{title} ...") as status:
            self._status, self._title = status, title
            try:
                yield
            finally:
                self._status = None

    def progress(self, done: float, text: str) -> None:
        """Show how far the running step is, on a terminal.

        Args:
            done: From 0 to 1.
            text: What is being done.
        """
        if self._status is None:
            return
        filled = round(done * _BAR)
        bar = "━" * filled + " " * (_BAR - filled)
        self._status.update(f"{self._title} {bar} {done:4.0%} {escape(text)}")


def progress_stream() -> TextIO:
    """Return standard error on a descriptor of its own, which captures do not redirect."""
    return os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)


def peak_bytes() -> int:
    """Return the largest resident size that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
