"""One row per way to damage or forge an artifact, with the words of the refusal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_artifacts import RawArtifact, canonical

from leptonc.runtime.artifact.reader import open_artifact
from leptonc.runtime.errors import ArtifactError, IntegrityError

Attack = Callable[[RawArtifact], None]


def field(name: str, value: Any) -> Attack:
    """Set one attribute of the raw artifact."""
    return lambda raw: setattr(raw, name, value)


def header(change: Callable[[dict[str, Any]], object]) -> Attack:
    """Change the header after the hashes were computed."""

    def attack(raw: RawArtifact) -> None:
        raw.edit = change

    return attack


def section(index: int, key: str, value: Any) -> Attack:
    """Set one key of one section's entry."""
    return header(lambda value_: value_["sections"][index].__setitem__(key, value))


def weight(key: str, value: Any) -> Attack:
    """Set one key of the weight's entry in the manifest."""
    return lambda raw: raw.weight.__setitem__(key, value)


def at(path: str, value: Any) -> Attack:
    """Set what `path` (keys and indices, with dots) names in the manifest."""

    def attack(raw: RawArtifact) -> None:
        *parents, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
        target: Any = raw.manifest
        for key in parents:
            target = target[key]
        target[last] = value

    return attack


def without(path: str) -> Attack:
    """Remove what `path` names from the manifest."""

    def attack(raw: RawArtifact) -> None:
        *parents, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
        target: Any = raw.manifest
        for key in parents:
            target = target[key]
        del target[last]

    return attack


def header_bytes(change: Callable[[bytes], bytes]) -> Attack:
    """Change the spelling of the header."""

    def attack(raw: RawArtifact) -> None:
        raw.header_text = lambda value: change(canonical(value))

    return attack


def manifest_bytes(change: Callable[[bytes], bytes]) -> Attack:
    """Change the spelling of the manifest; its hash is right."""

    def attack(raw: RawArtifact) -> None:
        raw.manifest_text = change(canonical(raw.manifest))

    return attack


def duplicate_section(value: dict[str, Any]) -> None:
    value["sections"][1]["name"] = value["sections"][0]["name"]


def swap_sections(value: dict[str, Any]) -> None:
    value["sections"][:2] = reversed(value["sections"][:2])


def drop_section(value: dict[str, Any]) -> None:
    del value["sections"][0]


PREFIX = [
    ("magic", field("magic", b"\x92LEPTON\x01"), "not a leptonc artifact"),
    ("zip", field("magic", b"PK\x03\x04\x14\0\0\0"), "not a leptonc artifact"),
    (
        "version",
        field("magic", b"\x93LEPTON\x02"),
        "format version 2; this leptonc reads version 1",
    ),
    ("version zero", field("magic", b"\x93LEPTON\0"), "format version 0"),
    ("10 GB header", field("header_length", 10 << 30), "a header of 10737418240 bytes"),
    ("largest header", field("header_length", 2**64 - 1), "a header of 18446744073709551615 bytes"),
    ("empty header", field("header_length", 0), "does not end at a multiple of 4096"),
    ("odd header", field("header_length", 4079), "does not end at a multiple of 4096"),
    ("header past the end", field("header_length", (1 << 20) - 16), "ends inside its header"),
]
HEADER = [
    ("not JSON", header_bytes(lambda text: text[:-1]), "not JSON"),
    ("not UTF-8", header_bytes(lambda text: b"\xff" + text), "not UTF-8 at byte 0"),
    ("a list", header_bytes(lambda text: b"[" + text + b"]"), "exactly the keys"),
    ("white space", header_bytes(lambda text: text.replace(b",", b", ")), "not in canonical form"),
    ("leading space", header_bytes(lambda text: b" " + text), "not in canonical form"),
    (
        "unsorted keys",
        header_bytes(
            lambda text: json.dumps(
                dict(reversed(json.loads(text).items())), separators=(",", ":")
            ).encode()
        ),
        "not in canonical form",
    ),
    (
        "repeated key",
        header_bytes(lambda text: b'{"format":1,' + text[1:]),
        "'format' occurs twice",
    ),
    (
        "NaN",
        header_bytes(lambda text: text.replace(b'"format":1', b'"format":NaN')),
        "NaN is not a JSON number",
    ),
    ("deep nesting", field("header_text", lambda value: b"[" * 4000), "header is invalid"),
    ("huge number", field("header_text", lambda value: b"9" * 4080), "exactly the keys"),
    ("format as float", header(lambda value: value.update(format=1.0)), "format 1.0"),
    ("format as boolean", header(lambda value: value.update(format=True)), "format True"),
    ("format 2", header(lambda value: value.update(format=2)), "format 2"),
    (
        "extra key",
        header(lambda value: value.update(more=1)),
        "exactly the keys format, requires, sections",
    ),
    (
        "missing key",
        header(lambda value: value.pop("sections")),
        "exactly the keys format, requires, sections",
    ),
    ("feature", header(lambda value: value.update(requires=["zstd"])), "does not know: 'zstd'"),
    (
        "feature and a new key",
        header(lambda value: value.update(requires=["zstd"], more=1)),
        "'zstd'",
    ),
    (
        "features as text",
        header(lambda value: value.update(requires="zstd")),
        "`requires` is not a list",
    ),
    (
        "features as numbers",
        header(lambda value: value.update(requires=[1])),
        "`requires` is not a list",
    ),
    ("no sections", header(lambda value: value.update(sections=[])), "no list of sections"),
    ("sections as object", header(lambda value: value.update(sections={})), "no list of sections"),
]
SECTIONS = [
    (
        "extra key",
        header(lambda value: value["sections"][0].update(more=1)),
        "exactly the keys name",
    ),
    (
        "missing key",
        header(lambda value: value["sections"][0].pop("name")),
        "exactly the keys name",
    ),
    (
        "not an object",
        header(lambda value: value["sections"].__setitem__(0, 3)),
        "exactly the keys name",
    ),
    ("name", section(0, "name", 3), "3 is not a section name"),
    ("empty name", section(0, "name", ""), "'' is not a section name"),
    ("path as name", section(0, "name", "../x"), "'../x' is not a section name"),
    ("NUL in name", section(0, "name", "a\0"), "is not a section name"),
    ("duplicate name", header(duplicate_section), "the section occurs twice"),
    ("negative offset", section(1, "offset", -4096), "the offset -4096 is not an integer"),
    ("overflowing offset", section(1, "offset", 2**64), "is not an integer from 0 to 2**62"),
    ("boolean offset", section(1, "offset", True), "the offset True is not an integer"),
    ("float offset", section(1, "offset", 8192.0), "the offset 8192.0 is not an integer"),
    ("text offset", section(1, "offset", "8192"), "the offset '8192' is not an integer"),
    ("misaligned offset", section(1, "offset", 8200), "is not a multiple of 4096"),
    ("overlap", section(1, "offset", 4096), "overlaps what comes before it"),
    ("overlap with the header", section(0, "offset", 0), "overlaps what comes before it"),
    ("out of order", header(swap_sections), "a hole before the section"),
    ("hole", section(1, "offset", 16384), "a hole before the section"),
    ("section left out", header(drop_section), "a hole before the section"),
    ("negative length", section(0, "length", -1), "the length -1 is not an integer"),
    ("overflowing length", section(0, "length", 2**63), "is not an integer from 0 to 2**62"),
    ("boolean length", section(0, "length", True), "the length True is not an integer"),
    ("many hashes needed", section(0, "length", 2**62), "1099511627776 hashes are needed"),
    ("longer than the file", section(2, "length", 4 << 20), "the file is truncated"),
    ("shorter than the file", section(2, "length", 5), "bytes after the last section"),
    ("no hash", section(0, "sha256", []), "1 hashes are needed"),
    ("two hashes", section(0, "sha256", ["0" * 64] * 2), "1 hashes are needed"),
    ("hash not a list", section(0, "sha256", "0" * 64), "1 hashes are needed"),
    ("hash too short", section(0, "sha256", ["0" * 63]), "not 64 lower-case hexadecimal digits"),
    ("hash not hexadecimal", section(0, "sha256", ["g" * 64]), "not 64 lower-case hexadecimal"),
    ("hash in upper case", section(0, "sha256", ["A" * 64]), "not 64 lower-case hexadecimal"),
    ("hash as number", section(0, "sha256", [1]), "not 64 lower-case hexadecimal digits"),
    ("trailing bytes", field("tail", b"x"), "1 bytes after the last section"),
    ("manifest not last", section(2, "name", "other"), "the last section is not the manifest"),
]
MANIFEST = [
    ("not JSON", manifest_bytes(lambda text: text[:-1]), "the manifest is invalid: not JSON"),
    ("repeated key", manifest_bytes(lambda text: b'{"evidence":{},' + text[1:]), "occurs twice"),
    ("NaN", manifest_bytes(lambda text: text.replace(b'"evidence":{}', b'"evidence":NaN')), "NaN"),
    (
        "infinity",
        manifest_bytes(lambda text: text.replace(b'"evidence":{}', b'"evidence":1e999')),
        "not representable",
    ),
    (
        "lone surrogate",
        manifest_bytes(lambda text: text.replace(b'"name":"test"', b'"name":"\\ud800"')),
        "not representable",
    ),
    ("not an object", manifest_bytes(lambda text: b"[]"), "list where an object belongs"),
    ("no name", without("name"), "the key 'name' is missing"),
    ("no signature", without("signature"), "the key 'signature' is missing"),
    ("inputs as object", at("signature.inputs", {}), "dict where a list belongs"),
    ("no outputs", at("signature.outputs", []), "there is no output"),
    (
        "input dtype",
        at("signature.inputs.0.dtype", "float128"),
        "'float128' is not an element type",
    ),
    (
        "input without NumPy type",
        at("signature.inputs.0.dtype", "bfloat16"),
        "'bfloat16' is not an element type",
    ),
    ("output dtype", at("signature.outputs.0.dtype", 1), "1 is not a name"),
    (
        "negative dimension",
        at("signature.inputs.0.shape.1", -1),
        "-1 is neither a size nor a named dimension",
    ),
    ("boolean dimension", at("signature.inputs.0.shape.1", True), "True is neither a size"),
    (
        "dimension without name",
        at("signature.inputs.0.shape.0", {"min": 1, "max": 2}),
        "'name' is missing",
    ),
    (
        "bounds upside down",
        at("signature.inputs.0.shape.0", {"name": "b", "min": 3, "max": 2}),
        "the bound 2 is below the bound 3",
    ),
    (
        "negative bound",
        at("signature.inputs.0.shape.0", {"name": "b", "min": -1, "max": 2}),
        "-1 is not an integer",
    ),
    (
        "bound without max",
        at("signature.inputs.0.shape.0", {"name": "b", "min": 1}),
        "'max' is missing",
    ),
    (
        "two bounds for one name",
        at("signature.inputs.0.shape.1", {"name": "batch", "min": 2, "max": 9}),
        "'batch' has two different bounds",
    ),
    ("rank", at("signature.inputs.0.shape", [1] * 33), "rank 33; at most 32"),
    (
        "duplicate input",
        lambda raw: raw.manifest["signature"]["inputs"].append(
            raw.manifest["signature"]["inputs"][0]
        ),
        "the name 'x' occurs twice",
    ),
    ("no variants", at("variants", []), "there is no variant"),
    (
        "duplicate variant",
        lambda raw: raw.manifest["variants"].append(raw.manifest["variants"][0]),
        "the name 'g' occurs twice",
    ),
    ("graph section", at("variants.0.graph", "h/graph"), "there is no section 'h/graph'"),
    ("options", at("variants.0.options", {"a": 1}), "not an object of texts"),
    ("engine version", at("variants.0.demands.engine_min", "1.x"), "'1.x' is not a version"),
    ("opset", at("variants.0.demands.opset", "20"), "'20' is not an integer"),
    (
        "instructions",
        at("variants.0.demands.instructions", [1]),
        "1 is not the name of an instruction set",
    ),
    ("weight dtype", weight("dtype", "float128"), "'float128' is not an element type of a weight"),
    ("text as weight", weight("dtype", "str"), "'str' is not an element type of a weight"),
    ("weight section", weight("section", "none"), "there is no section 'none'"),
    ("weight past its section", weight("offset", 5120), "the weight ends at byte 5248"),
    ("weight far away", weight("offset", 2**62), "the weight ends at byte"),
    ("negative weight offset", weight("offset", -64), "-64 is not an integer"),
    ("misaligned weight", weight("offset", 66), "66 is not a multiple of the element's size"),
    (
        "weight too short",
        weight("length", 124),
        "124 bytes for shape [4, 8] of float32, which needs 128",
    ),
    ("overflowing product", weight("shape", [2**40, 2**40]), "is larger than any file"),
    (
        "product that wraps to the length",
        weight("shape", [2**32, 2**32, 4, 8]),
        "is larger than any file",
    ),
    ("negative weight size", weight("shape", [-4, -8]), "-4 is not an integer"),
    ("boolean weight size", weight("shape", [True, 32]), "True is not an integer"),
    (
        "duplicate weight",
        lambda raw: raw.manifest["variants"][0]["weights"].append(raw.weight),
        "the name 'w' occurs twice",
    ),
]
ROWS = [
    pytest.param(attack, message, id=f"{group}: {name}")
    for group, rows in (
        ("prefix", PREFIX),
        ("header", HEADER),
        ("section", SECTIONS),
        ("manifest", MANIFEST),
    )
    for name, attack, message in rows
]


@pytest.mark.parametrize(("attack", "message"), ROWS)
def test_a_forged_file_is_refused_when_it_is_opened(
    attack: Attack, message: str, tmp_path: Path
) -> None:
    raw = RawArtifact()
    attack(raw)
    path = tmp_path / "forged.lepton"
    path.write_bytes(raw.to_bytes())
    with pytest.raises(ArtifactError) as caught:
        open_artifact(path, {})
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3


def test_the_artifact_under_attack_is_valid_when_nothing_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "valid.lepton"
    path.write_bytes(RawArtifact().to_bytes())
    with open_artifact(path, {}) as artifact:
        artifact.verify()


def test_padding_with_spaces_beyond_one_page_is_refused(tmp_path: Path) -> None:
    raw = RawArtifact().to_bytes()
    longer = raw[:8] + (8176).to_bytes(8, "little") + raw[16:4096] + b" " * 4096 + raw[4096:]
    path = tmp_path / "padded.lepton"
    path.write_bytes(longer)
    with pytest.raises(ArtifactError, match="spaces, more than needed"):
        open_artifact(path, {})


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = RawArtifact().to_bytes()
    boundaries = [0, 4096, 4101, 8192, 8192 + 5120, 16384, len(whole)]
    path = tmp_path / "cut.lepton"
    for length in sorted({b + d for b in boundaries for d in (-1, 0, 1)} | set(range(20))):
        if not 0 <= length < len(whole):
            continue
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="empty|ends inside|truncated"):
            open_artifact(path, {})


@pytest.mark.parametrize("place", [4096, 4100, 8192, 8192 + 5119])
def test_a_changed_byte_is_found_and_named(place: int, tmp_path: Path) -> None:
    data = bytearray(RawArtifact().to_bytes())
    data[place] ^= 1
    path = tmp_path / "changed.lepton"
    path.write_bytes(data)
    name = "g/graph" if place < 8192 else "weights"
    with (
        open_artifact(path, {}) as artifact,
        pytest.raises(IntegrityError, match="are not those that were written") as caught,
    ):
        artifact.verify()
    assert f"section {name!r}, chunk 0" in str(caught.value)


def test_a_changed_manifest_is_found_without_verification(tmp_path: Path) -> None:
    data = RawArtifact().to_bytes()
    path = tmp_path / "changed.lepton"
    path.write_bytes(data.replace(b'"name":"test"', b'"name":"evil"'))
    with pytest.raises(IntegrityError, match="the manifest is not the one that was written"):
        open_artifact(path, {})


def test_padding_that_is_not_zero_is_refused(tmp_path: Path) -> None:
    raw = RawArtifact()
    raw.padding = b"x"
    path = tmp_path / "padding.lepton"
    path.write_bytes(raw.to_bytes())
    with (
        open_artifact(path, {}) as artifact,
        pytest.raises(IntegrityError, match="the padding from byte 4101 to 8192 is not zero"),
    ):
        artifact.verify()


def test_the_first_of_several_damaged_chunks_is_named(tmp_path: Path) -> None:
    raw = RawArtifact()
    raw.sections["weights"] = bytes(12 << 20)
    data = bytearray(raw.to_bytes())
    for chunk in (0, 1, 2):
        data[8192 + (chunk << 22) + 5] = 1
    path = tmp_path / "changed.lepton"
    path.write_bytes(data)
    with open_artifact(path, {}) as artifact, pytest.raises(IntegrityError, match="chunk 0"):
        artifact.verify(threads=1)


def missing(path: Path) -> None:
    """Leave nothing at the path."""


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def loop(path: Path) -> None:
    path.symlink_to(path)


PLACES = [
    (missing, "there is no such file"),
    (Path.mkdir, "not a regular file"),
    (Path.touch, "the file is empty"),
    (os.mkfifo, "not a regular file"),
    (dangling, "a symbolic link to a file that does not exist"),
    (loop, "cannot be opened: Too many levels of symbolic links"),
]


@pytest.mark.parametrize(("make", "message"), PLACES)
def test_what_is_not_a_file_is_refused(
    make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.lepton"
    make(path)
    with pytest.raises(ArtifactError, match=message):
        open_artifact(path, {})


def test_a_device_is_refused_without_reading_it() -> None:
    with pytest.raises(ArtifactError, match="not a regular file"):
        open_artifact("/dev/zero", {})


def test_a_name_with_a_nul_byte_is_refused() -> None:
    with pytest.raises(ArtifactError, match="it cannot be opened"):
        open_artifact("a\0b", {})


def test_a_symbolic_link_to_an_artifact_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(RawArtifact().to_bytes())
    (tmp_path / "link").symlink_to("real")
    with open_artifact(tmp_path / "link", {}) as artifact:
        assert artifact.manifest.name == "test"
