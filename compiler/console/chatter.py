"""Hold back what libraries print while they work.

PyTorch's exporter and its friends write to both standard streams, from Python and from C++.
Standard output belongs to the answer (`--json` promises one object on it), so both streams
are captured at the level of file descriptors, and shown only on failure or with `--debug`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import IO

LIMIT = 1 << 16


@dataclass
class Chatter:
    """What was printed while it was held back; at most the last 64 KiB."""

    text: str = field(default="")


@contextmanager
def held_back(*, show: bool = False) -> Iterator[Chatter]:
    """Capture file descriptors 1 and 2 for the duration.

    Args:
        show: Let everything through to standard error instead (`--debug`).

    Yields:
        A `Chatter` whose `text` is filled when the block ends, also when it raises.
    """
    chatter = Chatter()
    _flush()
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        target = saved[1] if show else sink.fileno()
        if not show:
            warnings.simplefilter("ignore")
        try:
            # Python's own streams need not write to descriptors 1 and 2 (notebooks, tests).
            with (
                os.fdopen(os.dup(target), "w", buffering=1) as stream,
                redirect_stdout(stream),
                redirect_stderr(stream),
            ):
                os.dup2(target, 1)
                os.dup2(target, 2)
                yield chatter
        finally:
            _flush()
            for number, original in enumerate(saved, start=1):
                os.dup2(original, number)
                os.close(original)
            chatter.text = _tail(sink)


def _tail(sink: IO[bytes]) -> str:
    size = sink.seek(0, os.SEEK_END)
    sink.seek(max(0, size - LIMIT))
    return sink.read().decode(errors="replace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
