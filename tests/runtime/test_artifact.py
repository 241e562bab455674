"""Writing and reading artifacts: exact bytes, identity, and nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_artifacts import RawArtifact

from leptonc.runtime import artifact_writer
from leptonc.runtime.artifact import SectionData, open_artifact, stage_artifact
from leptonc.runtime.canonical import NotCanonicalError
from leptonc.runtime.errors import EnvironmentProblem
from leptonc.runtime.layout import CHUNK, place

# The smallest valid manifest, canonical.
MANIFEST: dict[str, Any] = {
    "leptonc": "0",
    "name": "n",
    "signature": {"inputs": [], "outputs": [{"dtype": "bool", "name": "y", "shape": []}]},
    "variants": [
        {
            "backend": "ort",
            "demands": {"engine": "e", "engine_min": "1", "instructions": [], "opset": 1},
            "device": "cpu",
            "graph": "g",
            "name": "v",
            "options": {},
            "precision": "fp32",
            "weights": [],
        }
    ],
}


def section(name: str, data: bytes, *, pieces: int = 1) -> SectionData:
    size = -(-len(data) // pieces) or 1
    return SectionData(
        name, len(data), lambda: (data[i : i + size] for i in range(0, len(data), size))
    )


def write(path: Path, sections: list[SectionData], manifest: dict[str, Any]) -> bytes:
    with stage_artifact(path) as staged:
        staged.write(sections, manifest)
        assert staged.commit() == path.stat().st_size
    return path.read_bytes()


def test_the_bytes_of_a_tiny_artifact(tmp_path: Path) -> None:
    header = (
        b'{"format":1,"requires":[],"sections":['
        b'{"length":3,"name":"g","offset":4096,"sha256":['
        b'"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]},'
        b'{"length":287,"name":"manifest","offset":8192,"sha256":['
        b'"5457db288972041c412ee9214b59fc7602c73f888e8394c66929017f38ca2e29"]}]}'
    )
    manifest = (
        b'{"leptonc":"0","name":"n","signature":{"inputs":[],"outputs":[{"dtype":"bool",'
        b'"name":"y","shape":[]}]},"variants":[{"backend":"ort","demands":{"engine":"e",'
        b'"engine_min":"1","instructions":[],"opset":1},"device":"cpu","graph":"g",'
        b'"name":"v","options":{},"precision":"fp32","weights":[]}]}'
    )
    expected = (
        b"\x93LEPTON\x01"
        + b"\xf0\x0f\0\0\0\0\0\0"
        + header.ljust(4080, b" ")
        + b"abc".ljust(4096, b"\0")
        + manifest
    )
    assert write(tmp_path / "m.lepton", [section("g", b"abc")], MANIFEST) == expected


def test_the_writer_and_the_tests_agree_on_the_format(tmp_path: Path) -> None:
    raw = RawArtifact()
    sections = [section(name, data) for name, data in raw.sections.items()]
    assert write(tmp_path / "m.lepton", sections, raw.manifest) == raw.to_bytes()


@pytest.mark.parametrize("size", [0, 1, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
@pytest.mark.parametrize("pieces", [1, 3])
def test_what_is_written_is_read_back(size: int, pieces: int, tmp_path: Path) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    content = data[:size]
    path = tmp_path / "m.lepton"
    write(path, [section("g", b"abc"), section("w", content, pieces=pieces)], MANIFEST)
    with open_artifact(path) as artifact:
        artifact.verify()
        assert bytes(artifact.view("w")) == content
        assert list(artifact.sections) == ["g", "w", "manifest"]
        assert artifact.sections["w"].offset % 4096 == 0
        assert artifact.manifest.raw["name"] == "n"


def test_views_outlive_the_artifact(tmp_path: Path) -> None:
    path = tmp_path / "m.lepton"
    write(path, [section("g", b"abc")], MANIFEST)
    artifact = open_artifact(path)
    view = artifact.view("g", 1, 2)
    artifact.close()
    path.unlink()
    assert bytes(view) == b"bc"
    assert view.readonly


def test_equal_input_gives_equal_bytes_in_another_process_and_folder(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from small_artifacts import build_linear; build_linear(Path(sys.argv[1]))\n"
    )
    contents = set()
    for seed, folder in (("1", "first"), ("2", "another-folder")):
        (tmp_path / folder).mkdir()
        command = [sys.executable, "-c", script, str(tmp_path / folder), str(Path(__file__).parent)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(command, check=True, cwd=tmp_path / folder, env=environment)
        contents.add((tmp_path / folder / "linear.lepton").read_bytes())
    assert len(contents) == 1
    assert str(tmp_path).encode() not in contents.pop()


def test_the_order_of_keys_in_the_manifest_does_not_matter(tmp_path: Path) -> None:
    reordered = dict(reversed(MANIFEST.items()))
    first = write(tmp_path / "a", [section("g", b"abc")], MANIFEST)
    assert write(tmp_path / "b", [section("g", b"abc")], reordered) == first


@pytest.mark.parametrize("evidence", [{}, {"a": 1}, {"a": "b" * 10_000}])
def test_a_replaced_manifest_gives_the_bytes_of_one_written_at_once(
    evidence: dict[str, Any], tmp_path: Path
) -> None:
    content = [section("g", b"abc"), section("w", bytes(9000))]
    final = {**MANIFEST, "evidence": evidence}
    expected = write(tmp_path / "at-once", content, final)
    with stage_artifact(tmp_path / "replaced") as staged:
        staged.write(content, {**MANIFEST, "evidence": "to come" * 1000})
        staged.replace_manifest(final)
        staged.commit()
    assert (tmp_path / "replaced").read_bytes() == expected


def test_a_manifest_that_needs_a_larger_header_moves_everything(tmp_path: Path) -> None:
    # 29 sections nearly fill the first page; the hashes of a large manifest overflow it.
    content = [section(f"s{index}", b"x") for index in range(28)]
    content[0] = section("g", b"abc")
    large = {**MANIFEST, "evidence": "e" * (40 << 20)}
    with stage_artifact(tmp_path / "m") as staged:
        staged.write(content, MANIFEST)
        staged.replace_manifest(large)
        staged.commit()
    with open_artifact(tmp_path / "m") as artifact:
        artifact.verify()
        assert artifact.sections["g"].offset == 8192
        assert bytes(artifact.view("g")) == b"abc"


def test_places_are_stable_for_headers_of_any_size() -> None:
    for count in (1, 30, 31, 32, 400):
        sections = place([(f"s{index}", 10) for index in range(count)])
        assert sections[0].offset % 4096 == 0
        offsets = [each.offset for each in sections]
        assert offsets == sorted(set(offsets))


def test_a_staged_artifact_can_be_read_by_a_child_process(tmp_path: Path) -> None:
    script = (
        "import sys; from leptonc.runtime.artifact import open_artifact\n"
        "artifact = open_artifact(sys.argv[1]); artifact.verify()\n"
        "print(bytes(artifact.view('g')).decode())\n"
    )
    with stage_artifact(tmp_path / "m.lepton") as staged:
        staged.write([section("g", b"abc")], MANIFEST)
        command = [sys.executable, "-c", script, staged.readable_path]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "abc\n"
    assert list(tmp_path.iterdir()) == []


def test_without_commit_nothing_remains(tmp_path: Path) -> None:
    with stage_artifact(tmp_path / "m.lepton") as staged:
        staged.write([section("g", b"abc")], MANIFEST)
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_artifact(tmp_path: Path) -> None:
    path = tmp_path / "m.lepton"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), stage_artifact(path) as staged:
        staged.write([section("g", b"abc")], MANIFEST)
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_commit_replaces_the_old_artifact_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.lepton"
    path.write_bytes(b"old")
    write(path, [section("g", b"abc")], MANIFEST)
    assert path.read_bytes().startswith(b"\x93LEPTON")
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write(tmp_path / "m.lepton", [section("g", b"abc")], MANIFEST)
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
        staged.write([section("g", b"abc")], MANIFEST)
        with open_artifact(staged.readable_path) as artifact:
            artifact.verify()
        staged.commit()
    assert list(tmp_path.iterdir()) == [path]
    with stage_artifact(path) as staged:
        staged.write([section("g", b"abcd")], MANIFEST)
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
from leptonc.runtime.artifact import SectionData, stage_artifact
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
from leptonc.runtime.artifact import SectionData, stage_artifact
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
        staged.write([section("g", b"abc")], MANIFEST)
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
        staged.write([section("g", b"abc")], MANIFEST)
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


@pytest.mark.parametrize(("length", "message"), [(2, "longer than 2"), (4, "shorter than 4")])
def test_a_section_of_another_length_than_announced_is_a_bug(
    length: int, message: str, tmp_path: Path
) -> None:
    wrong = SectionData("g", length, lambda: [b"abc"])
    with pytest.raises(ValueError, match=message), stage_artifact(tmp_path / "m") as staged:
        staged.write([wrong], MANIFEST)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, "\ud800"])
def test_a_manifest_that_json_cannot_spell_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(NotCanonicalError), stage_artifact(tmp_path / "m") as staged:
        staged.write([section("g", b"abc")], {**MANIFEST, "evidence": value})


def test_opening_allocates_little_for_a_large_artifact(tmp_path: Path) -> None:
    path = tmp_path / "m.lepton"
    write(
        path,
        [section("g", b"abc"), SectionData("w", 64 << 20, lambda: [bytes(64 << 20)])],
        MANIFEST,
    )
    with open_artifact(path) as artifact:
        before = resident_pages()
        artifact.verify()
        grown = (resident_pages() - before) * resource.getpagesize()
    assert grown < 32 << 20


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])
