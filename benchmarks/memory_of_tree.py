"""Run a command and watch the memory that it and its descendants occupy together."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

INTERVAL_S = 0.02


def peak_of(command: list[str]) -> int:
    """Return the largest proportional set size of the process tree of `command`, in bytes.

    A page that several processes share counts once, and so does a mapped file. The tree is
    looked at every 20 ms.

    Raises:
        SystemExit: The command failed.
    """
    peak = 0
    done = threading.Event()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:

        def watch() -> None:
            nonlocal peak
            while not done.wait(INTERVAL_S):
                peak = max(peak, _occupied(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, errors = process.communicate()
        done.set()
        watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}:\n{errors}")
    return peak


def _occupied(pid: int) -> int:
    """Return the bytes of a process and its descendants; one that has just ended has none."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
        tasks = [task / "children" for task in Path(f"/proc/{pid}/task").iterdir()]
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return own * 1024 + sum(_occupied(child) for child in children)
