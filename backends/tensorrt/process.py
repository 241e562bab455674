"""Runs the builder of TensorRT in a process of its own, and says what became of it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leptonc.backends.base import Progress
from leptonc.backends.tensorrt import builder as tensorrt_builder

_PATIENCE_S = 5.0
_LOG_LINES = 3


@dataclass(frozen=True)
class BuildRequest:
    """What to build, as the builder reads it.

    Attributes:
        flavour: "rtx" or "classic".
        model: An .onnx file with its weights beside it.
        capabilities: What to build for ("8.6"); empty for the GPU of the machine.
        profiles: For each optimisation profile the sizes of every input by "min", "opt", "max".
        flags: Names of `BuilderFlag`.
        level: Optimisation level, or None.
        workspace: Bytes, or None.
        hardware: A level of hardware compatibility.
        timing_cache: A file, or None.
        parse_only: Do not build.
    """

    flavour: str
    model: Path
    capabilities: tuple[str, ...] = ()
    profiles: tuple[Mapping[str, Mapping[str, list[int]]], ...] = ()
    flags: tuple[str, ...] = ()
    level: int | None = None
    workspace: int | None = None
    hardware: str = "none"
    timing_cache: Path | None = None
    parse_only: bool = False

    def to_json(self, folder: Path) -> dict[str, Any]:
        """Return the request with the files that the builder shall write."""
        return {
            "flavour": self.flavour,
            "model": str(self.model),
            "capabilities": list(self.capabilities),
            "profiles": [dict(profile) for profile in self.profiles],
            "flags": list(self.flags),
            "level": self.level,
            "workspace": self.workspace,
            "hardware": self.hardware,
            "timing_cache": None if self.timing_cache is None else str(self.timing_cache.resolve()),
            "parse_only": self.parse_only,
            "plan": str(folder / "plan"),
            "result": str(folder / "result.json"),
            "parent": os.getpid(),
        }


@dataclass(frozen=True)
class BuildOutcome:
    """What became of a build.

    Attributes:
        result: What the builder wrote; empty when it died before.
        signal: The signal that ended it, or None.
        phase: What it was doing last, as TensorRT calls it.
        stderr: The last lines that it printed.
    """

    result: Mapping[str, Any]
    signal: str | None = None
    phase: str = ""
    stderr: str = ""


def run_builder(request: BuildRequest, folder: Path, progress: Progress) -> BuildOutcome:
    """Build in a process of its own, which ends with this call whatever happens.

    Args:
        request: What to build.
        folder: For the plan ("plan") and what the process prints.
        progress: Gets each step.
    """
    (folder / "result.json").unlink(missing_ok=True)
    path = folder / "request.json"
    path.write_text(json.dumps(request.to_json(folder), sort_keys=True), encoding="utf-8")
    reader, writer = os.pipe()
    script = str(Path(tensorrt_builder.__file__).resolve())
    with (folder / "builder.log").open("w+b") as log, os.fdopen(reader, "rb", 0) as events:
        try:
            # A session of its own: Ctrl-C reaches this process alone, which then stops the other.
            process = subprocess.Popen(
                [sys.executable, "-P", script, str(path), str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(writer)
        steps = _Steps(progress)
        try:
            _follow(events.fileno(), steps)
            process.wait()
        finally:
            _stop(process)
        log.seek(0)
        printed = log.read().decode(errors="replace").strip().splitlines()
    result = folder / "result.json"
    killed = signal.Signals(-process.returncode).name if process.returncode < 0 else None
    return BuildOutcome(
        json.loads(result.read_text(encoding="utf-8")) if result.exists() else {},
        killed,
        steps.last,
        "\n".join(printed[-_LOG_LINES:]),
    )


def _follow(pipe: int, steps: _Steps) -> None:
    """Read events until the builder closes its end of the pipe."""
    rest = b""
    while True:
        select.select([pipe], [], [])
        piece = os.read(pipe, 1 << 16)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            steps.take(json.loads(line))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the builder to stop, and make it."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Steps:
    """Turns TensorRT's nested phases into one fraction, which never falls."""

    def __init__(self, progress: Progress) -> None:
        self.last = ""
        self._progress = progress
        self._phases: dict[str, tuple[str | None, int]] = {}
        self._done: dict[str, float] = {}
        self._shown = 0.0

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one event: the start of a phase, a step, or its end."""
        phase = str(event["phase"])
        if "steps" in event:
            self.last = phase
            self._phases[phase] = event["parent"], max(int(event["steps"]), 1)
            self._done[phase] = 0.0
        elif phase not in self._phases:
            return
        else:
            parent, steps = self._phases[phase]
            ended = event.get("finished")
            self._done[phase] = 1.0 if ended else min((int(event["step"]) + 1) / steps, 1.0)
            if ended and parent is not None:
                del self._phases[phase], self._done[phase]
        self._shown = max(self._shown, self._fraction())
        self._progress(self._shown, phase)

    def _fraction(self) -> float:
        """Return what is done: each open phase counts as a part of one step of its parent."""
        total = 0.0
        for phase, done in self._done.items():
            share, parent = 1.0, self._phases[phase][0]
            while parent is not None and parent in self._phases:
                above, steps = self._phases[parent]
                share, parent = share / steps, above
            total += share * done
        return min(total, 1.0)
