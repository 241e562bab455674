"""A scratch folder that does not outlive its process, even a killed one.

Large intermediate files go to the system's temporary folder. Each scratch folder holds a file
that its process keeps locked; a folder whose lock is free belongs to a process that was
killed, and the next run removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leptonc.runtime.errors import EnvironmentProblem

PREFIX = "leptonc-work-"
LOCK = "lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a scratch folder under TMPDIR and remove it at the end.

    Raises:
        EnvironmentProblem: The temporary folder cannot be written.
    """
    root = Path(tempfile.gettempdir())
    _remove_abandoned(root)
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EnvironmentProblem(
            f"no scratch folder can be made: {error.strerror}",
            where=str(root),
            fix="set TMPDIR to a folder that can be written and has room for the weights twice",
        ) from error
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{PREFIX}*"):
        try:
            if folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / LOCK, os.O_RDWR)
        except OSError:
            # Without a lock file the folder is being made this very moment, or is not ours.
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
