"""Programs that a test stops with Ctrl-C, wherever the tests themselves were started."""

from __future__ import annotations

import signal


def interruptible() -> None:
    """Undo what a shell does to all that it starts in the background: ignore Ctrl-C (`preexec_fn`)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
