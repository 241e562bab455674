from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from leptonc.compiler.workspace import scratch_folder
from leptonc.runtime.errors import EnvironmentProblem


@pytest.fixture
def temporary_root(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_it_goes_with_the_block_also_on_an_error(temporary_root):
    with pytest.raises(ZeroDivisionError), scratch_folder() as folder:
        (folder / "weights").write_bytes(b"x" * 100)
        _ = 1 / 0
    assert list(temporary_root.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_by_the_next(temporary_root):
    program = (
        "import os, signal\n"
        "from leptonc.compiler.workspace import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    (folder / 'weights').write_bytes(b'x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    (abandoned,) = temporary_root.iterdir()
    assert (abandoned / "weights").exists()
    with scratch_folder() as mine, scratch_folder() as other:
        assert not abandoned.exists()
        assert mine.exists() and other.exists()


def test_a_temporary_folder_that_cannot_be_used_is_named(temporary_root, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(EnvironmentProblem, match="No space left") as caught, scratch_folder():
        pass
    assert str(Path(temporary_root)) in str(caught.value)
    assert "TMPDIR" in str(caught.value)
