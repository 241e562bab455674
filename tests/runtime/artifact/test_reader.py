"""Writing and reading artifacts: exact bytes, identity, and nothing half-written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small_artifacts
from small_artifacts import TINY, RawArtifact, section, write

from leptonc.runtime.artifact.canonical_json import NotCanonicalError
from leptonc.runtime.artifact.layout import CHUNK, place
from leptonc.runtime.artifact.reader import open_artifact
from leptonc.runtime.artifact.writer import SectionData, stage_artifact


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
    assert write(tmp_path / "m.lepton", [section("g", b"abc")], TINY) == expected


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
    write(path, [section("g", b"abc"), section("w", content, pieces=pieces)], TINY)
    with open_artifact(path, {}) as artifact:
        artifact.verify()
        assert bytes(artifact.view("w")) == content
        assert list(artifact.sections) == ["g", "w", "manifest"]
        assert artifact.sections["w"].offset % 4096 == 0
        assert artifact.manifest.raw["name"] == "n"


def test_views_outlive_the_artifact(tmp_path: Path) -> None:
    path = tmp_path / "m.lepton"
    write(path, [section("g", b"abc")], TINY)
    artifact = open_artifact(path, {})
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
        command = [
            sys.executable,
            "-c",
            script,
            str(tmp_path / folder),
            str(Path(small_artifacts.__file__).parent),
        ]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(command, check=True, cwd=tmp_path / folder, env=environment)
        contents.add((tmp_path / folder / "linear.lepton").read_bytes())
    assert len(contents) == 1
    assert str(tmp_path).encode() not in contents.pop()


def test_the_order_of_keys_in_the_manifest_does_not_matter(tmp_path: Path) -> None:
    reordered = dict(reversed(TINY.items()))
    first = write(tmp_path / "a", [section("g", b"abc")], TINY)
    assert write(tmp_path / "b", [section("g", b"abc")], reordered) == first


@pytest.mark.parametrize("evidence", [{}, {"a": 1}, {"a": "b" * 10_000}])
def test_a_replaced_manifest_gives_the_bytes_of_one_written_at_once(
    evidence: dict[str, Any], tmp_path: Path
) -> None:
    content = [section("g", b"abc"), section("w", bytes(9000))]
    final = {**TINY, "evidence": evidence}
    expected = write(tmp_path / "at-once", content, final)
    with stage_artifact(tmp_path / "replaced") as staged:
        staged.write(content, {**TINY, "evidence": "to come" * 1000})
        staged.replace_manifest(final)
        staged.commit()
    assert (tmp_path / "replaced").read_bytes() == expected


def test_a_manifest_that_needs_a_larger_header_moves_everything(tmp_path: Path) -> None:
    # 29 sections nearly fill the first page; the hashes of a large manifest overflow it.
    content = [section(f"s{index}", b"x") for index in range(28)]
    content[0] = section("g", b"abc")
    large = {**TINY, "evidence": "e" * (40 << 20)}
    with stage_artifact(tmp_path / "m") as staged:
        staged.write(content, TINY)
        staged.replace_manifest(large)
        staged.commit()
    with open_artifact(tmp_path / "m", {}) as artifact:
        artifact.verify()
        assert artifact.sections["g"].offset == 8192
        assert bytes(artifact.view("g")) == b"abc"


def test_places_are_stable_for_headers_of_any_size() -> None:
    for count in (1, 30, 31, 32, 400):
        sections = place([(f"s{index}", 10) for index in range(count)])
        assert sections[0].offset % 4096 == 0
        offsets = [each.offset for each in sections]
        assert offsets == sorted(set(offsets))


def test_opening_allocates_little_for_a_large_artifact(tmp_path: Path) -> None:
    path = tmp_path / "m.lepton"
    write(
        path,
        [section("g", b"abc"), SectionData("w", 64 << 20, lambda: [bytes(64 << 20)])],
        TINY,
    )
    with open_artifact(path, {}) as artifact:
        before = resident_pages()
        artifact.verify()
        grown = (resident_pages() - before) * resource.getpagesize()
    assert grown < 32 << 20


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.parametrize(("length", "message"), [(2, "longer than 2"), (4, "shorter than 4")])
def test_a_section_of_another_length_than_announced_is_a_bug(
    length: int, message: str, tmp_path: Path
) -> None:
    wrong = SectionData("g", length, lambda: [b"abc"])
    with pytest.raises(ValueError, match=message), stage_artifact(tmp_path / "m") as staged:
        staged.write([wrong], TINY)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, "\ud800"])
def test_a_manifest_that_json_cannot_spell_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(NotCanonicalError), stage_artifact(tmp_path / "m") as staged:
        staged.write([section("g", b"abc")], {**TINY, "evidence": value})
