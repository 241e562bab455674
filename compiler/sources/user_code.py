"""Find the user's own line behind an exporter's error or behind a graph node.

An error inside torch is of no use to the person who wrote the module; the line of theirs that
led to it is.
"""

from __future__ import annotations

import logging
import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)(?:\n(?P<code>.*))?'
)
_RESTRICTION = re.compile(r"eval (?P<guard>.+) \[guard added\]")
_FIXED = re.compile(r"Eq\(.+, \d+\)$")
# Frames of the compiler itself are nobody's module.
_OURS = Path(__file__).resolve().parents[1]
_SHAPES_LOGGER = "torch.fx.experimental.symbolic_shapes"


def line_of_error(error: BaseException, user_code: Path | None) -> str | None:
    """Return `file:line in function(): code` of the user's frame nearest to `error`."""
    frames: list[tuple[str, int, str, str]] = []
    pending: BaseException | None = error
    while pending is not None:
        frames.extend(
            (frame.filename, frame.lineno or 0, frame.name, frame.line or "")
            for frame in traceback.extract_tb(pending.__traceback__)
        )
        frames.extend(_frames_in_text(str(pending)))
        pending = pending.__cause__ or pending.__context__
    return _choose(frames, user_code)


def line_of_trace(stack_trace: str, user_code: Path | None) -> str | None:
    """Return the user's line in a stack trace that the exporter noted on a node."""
    return _choose(list(_frames_in_text(stack_trace)), user_code)


def _frames_in_text(text: str) -> Iterator[tuple[str, int, str, str]]:
    for match in _FRAME.finditer(text):
        yield match["file"], int(match["line"]), match["name"], (match["code"] or "").strip()


def _choose(frames: Iterable[tuple[str, int, str, str]], user_code: Path | None) -> str | None:
    """Prefer the user's folder, then any library's model code; never torch's own, never ours."""
    paths = sysconfig.get_paths()
    packages = {Path(paths[kind]) for kind in ("purelib", "platlib")}
    standard = {Path(paths[kind]) for kind in ("stdlib", "platstdlib")}
    best: tuple[int, str] | None = None
    for file, line, name, code in frames:
        path = Path(file)
        if file.startswith("<") or _OURS in path.parents:
            continue
        installed = any(folder in path.parents for folder in packages)
        own = user_code is not None and user_code in path.resolve().parents and not installed
        if not own and ("/torch/" in file or (not installed and standard & {*path.parents})):
            continue
        rank = 2 if own else 0 if installed else 1
        if best is None or rank >= best[0]:
            best = rank, f"{file}:{line} in {name}()" + (f": {code}" if code else "")
    return best[1] if best else None


@dataclass(frozen=True)
class Restriction:
    """A line of the user's at which a dynamic size was restricted, or `fixes` to one value."""

    line: str
    fixes: bool


class _GuardHandler(logging.Handler):
    """Notes which line of the module was running whenever PyTorch restricted a symbolic size."""

    def __init__(self, user_code: Path | None) -> None:
        super().__init__(logging.INFO)
        self._user_code = user_code
        self.seen: list[Restriction] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Look up the stack: in non-strict export the module's own frames are on it."""
        match = _RESTRICTION.match(record.getMessage())
        if not match or match["guard"].startswith("[guard suppressed]"):
            return
        frames: list[tuple[str, int, str, str]] = []
        for frame in traceback.extract_stack()[:-1]:
            if _OURS in Path(frame.filename).parents:
                # Whoever called the compiler is not the module's code.
                frames.clear()
            else:
                frames.append((frame.filename, frame.lineno or 0, frame.name, frame.line or ""))
        line = _choose(frames, self._user_code)
        if line is not None:
            self.seen.append(Restriction(line, fixes=bool(_FIXED.match(match["guard"]))))


@contextmanager
def watched_sizes(user_code: Path | None) -> Iterator[list[Restriction]]:
    """Collect the user's lines at which torch.export fixes or restricts a dynamic size."""
    logger = logging.getLogger(_SHAPES_LOGGER)
    handler = _GuardHandler(user_code)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler.seen
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
