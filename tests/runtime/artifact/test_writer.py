"""Staging an artifact: it appears whole under its name, or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from small_artifacts import TINY, section, write

from leptonc.runtime.artifact import writer as artifact_writer
from leptonc.runtime.artifact.reader import open_artifact
from leptonc.runtime.artifact.writer import stage_artifact
from leptonc.runtime.errors import EnvironmentProblem


def test_a_staged_artifact_can_be_read_by_a_child_process(tmp_path: Path) -> None:
    script = (
        "import sys; from leptonc.runtime.artifact.reader import open_artifact\n"
        "artifact = open_artifact(sys.argv[1], {}); artifact.verify()\n"
        "print(bytes(artifact.view('g')).decode())\n"
    )
    with stage_artifact(tmp_path / "m.lepton") as staged:
        staged.write([section("g", b"abc")], TINY)
        command = [sys.executable, "-c", script, staged.readable_path]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "abc\n"
    assert list(tmp_path.iterdir()) == []


def test_without_commit_nothing_remains(tmp_path: Path) -> None:
    with stage_artifact(tmp_path / "m.lepton") as staged:
        staged.write([section("g", b"abc")], TINY)
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_artifact(tmp_path: Path) -> None:
    path = tmp_path / "m.lepton"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), stage_artifact(path) as staged:
        staged.write([section("g", b"abc")], TINY)
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_commit_replaces_the_old_artifact_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.lepton"
    path.write_bytes(b"old")
    write(path, [section("g", b"abc")], TINY)
    assert path.read_bytes().startswith(b"\x93LEPTON")
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write(tmp_path / "m.lepton", [section("g", b"abc")], TINY)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "m.lepton").stat().st_mode) == 0o640


@pytest.fixture
def no_anonymous_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system like NFS or overlayfs of old, which has no O_TMPFILE."""
    real = os.open

    def refusing(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, mode)

    monkeypatch.setattr(artifact_writer.os, "open", refusing)


@pytest.mark.usefixtures("no_anonymous_files")
def test_a_file_system_without_anonymous_files_works_as_well(tmp_path: Path) -> None:
    path = tmp_path / "m.lepton"
    with stage_artifact(path) as staged:
        staged.write([section("g", b"abc")], TINY)
        with open_artifact(staged.readable_path, {}) as artifact:
            artifact.verify()
        staged.commit()
    assert list(tmp_path.iterdir()) == [path]
    with stage_artifact(path) as staged:
        staged.write([section("g", b"abcd")], TINY)
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
from leptonc.runtime.artifact.reader import SectionData, stage_artifact
def chunks():
    yield bytes(5 << 20)
    os.kill(os.getpid(), signal.SIGKILL)
with stage_artifact(sys.argv[1]) as staged:
    staged.write([SectionData("g", 10 << 20, chunks)], {})
"""


def test_sigkill_in_the_middle_of_writing_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "m")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, sys
from leptonc.runtime.artifact.reader import SectionData, stage_artifact
from leptonc.runtime.errors import EnvironmentProblem
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
try:
    with stage_artifact(sys.argv[1]) as staged:
        staged.write([SectionData("g", 4 << 20, lambda: [bytes(4 << 20)])], {})
except EnvironmentProblem as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_file_that_may_not_grow_is_explained_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path / "m")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 5
    assert "cannot be written: File too large" in done.stdout
    assert "ulimit -f" in done.stdout
    assert list(tmp_path.iterdir()) == []


REFUSALS = [
    (errno.ENOSPC, "No space left on device", "free some space"),
    (errno.EDQUOT, "Disk quota exceeded", "quota"),
    (errno.EIO, "Input/output error", "check the disk"),
]


@pytest.mark.parametrize(("number", "message", "fix"), REFUSALS)
def test_a_disk_that_refuses_is_explained_and_leaves_nothing(
    number: int, message: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(artifact_writer.os, "pwrite", full)
    with (
        pytest.raises(EnvironmentProblem, match=message) as caught,
        stage_artifact(tmp_path / "m") as staged,
    ):
        staged.write([section("g", b"abc")], TINY)
    assert fix in str(caught.value)
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []


def test_a_commit_that_fails_leaves_the_old_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.lepton"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(artifact_writer.os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match="No space left"), stage_artifact(path) as staged:
        staged.write([section("g", b"abc")], TINY)
        staged.commit()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


UNWRITABLE = [
    pytest.param("/proc/self", "cannot be written", id="a file system that takes no files"),
    pytest.param("/gone/away", "No such file or directory", id="missing"),
    pytest.param("/dev/null", "Not a directory", id="not a folder"),
]


@pytest.mark.parametrize(("folder", "message"), UNWRITABLE)
def test_a_folder_that_cannot_be_written_is_explained(folder: str, message: str) -> None:
    with (
        pytest.raises(EnvironmentProblem, match=message) as caught,
        stage_artifact(f"{folder}/m.lepton"),
    ):
        pass
    assert f"{folder}/m.lepton" in str(caught.value)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_folder_is_explained(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(path: str, flags: int, mode: int = 0o777) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(artifact_writer.os, "open", refusing)
        with (
            pytest.raises(EnvironmentProblem, match=os.strerror(number)) as caught,
            stage_artifact(tmp_path / "m"),
        ):
            pass
    assert "choose a folder that can be written" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="a folder has the name"), stage_artifact(tmp_path):
        pass
